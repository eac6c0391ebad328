"""Statements as data: what each gives a value to and what it reads, known as it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement's lines; one that does nothing but give ``name`` a value says so."""

    lines: tuple[str, ...]
    reads: frozenset[str] = frozenset()
    name: str | None = None


def without_unread(made: Sequence[Statement], read: Iterable[str] = ()) -> list[Statement]:
    """The statements without those that only give a name a value which nothing after reads.

    ``read``: what is read after all of them.
    """
    wanted, kept = set(read), list[Statement]()
    for one in reversed(made):
        if one.name is None or one.name in wanted:
            wanted |= one.reads
            kept.append(one)
    return kept[::-1]


@dataclass
class Spellings:
    """How names are spelled in a text, and which of them were asked for."""

    known: dict[str, str]
    _asked: set[str] = field(default_factory=set)

    def get(self, name: str, other: str) -> str:
        """The spelling of ``name``, ``other`` where it has none of its own."""
        self.note(name)
        return self.known.get(name, other)

    def note(self, *names: str) -> None:
        """Count names as asked for."""
        self._asked.update(names)

    def asked(self) -> frozenset[str]:
        """The names that were asked for since this was called last."""
        asked, self._asked = frozenset(self._asked), set()
        return asked


__all__ = ["Spellings", "Statement", "without_unread"]
