"""Statements as data: what each gives a value to and what it reads, known as it is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Assignment:
    """``name = code``."""

    name: str
    code: str
    reads: frozenset[str] = frozenset()


def without_unread(made: Sequence[Assignment], read: Iterable[str]) -> list[Assignment]:
    """The assignments whose names are in ``read``, and those that these read in turn."""
    wanted, kept = set(read), list[Assignment]()
    for one in reversed(made):
        if one.name in wanted:
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
        self._asked.add(name)
        return self.known.get(name, other)

    def asked(self) -> frozenset[str]:
        """The names that were asked for since this was called last."""
        asked, self._asked = frozenset(self._asked), set()
        return asked


__all__ = ["Assignment", "Spellings", "without_unread"]
