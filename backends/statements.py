"""Statements as data: what each gives a value to and what it reads, known as it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .python_text import Text, statement


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement's lines; one that does nothing but give ``name`` a value says so."""

    lines: tuple[str, ...]
    reads: frozenset[str] = frozenset()
    name: str | None = None


def written(value: Text, depth: int = 1, before: str = "", after: str = "") -> Statement:
    """A statement with one expression, between what comes before and after it."""
    return Statement(tuple(statement(value, depth, before, after)), value.reads)


def assigned(name: str, value: Text, depth: int = 1) -> Statement:
    """``name = value``, in a function's body."""
    return Statement(tuple(statement(value, depth, f"{name} = ")), value.reads, name)


def without_unread(made: Sequence[Statement]) -> list[Statement]:
    """The statements without those that only give a name a value which nothing after reads."""
    wanted, kept = set[str](), list[Statement]()
    for one in reversed(made):
        if one.name is None or one.name in wanted:
            wanted |= one.reads
            kept.append(one)
    return kept[::-1]


__all__ = ["Statement", "assigned", "without_unread", "written"]
