"""The syntax tree of an expression as it is written, before names and axes are known."""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.expression import Span


@dataclass(frozen=True, slots=True)
class Number:
    """A literal, with ``inf``, ``pi``, ``true`` and ``false``."""

    value: bool | int | float
    span: Span


@dataclass(frozen=True, slots=True)
class Name:
    """A name: of a value, a dim or an index."""

    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Group:
    """A parenthesis. ``(D)`` is never a bare dim."""

    inner: Node
    span: Span


@dataclass(frozen=True, slots=True)
class Unary:
    """``neg`` or ``not``."""

    op: str
    x: Node
    span: Span


@dataclass(frozen=True, slots=True)
class Binary:
    """An arithmetic or logical operator by its name in the IR; ``span`` is the operator's."""

    op: str
    left: Node
    right: Node
    span: Span


@dataclass(frozen=True, slots=True)
class Compare:
    """``first op x op x ...``; every neighbouring pair is compared."""

    first: Node
    rest: tuple[tuple[str, Node, Span], ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Apply:
    """``function(args, key=value, ...)``; ``span`` is the function's name."""

    function: str
    args: tuple[Node, ...]
    keywords: tuple[tuple[Name, Node], ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Bracket:
    """``x[key=index, ...]``, or ``x[index]`` with no key."""

    x: Node
    at: tuple[tuple[Name | None, Node], ...]
    span: Span


Node = Number | Name | Group | Unary | Binary | Compare | Apply | Bracket

__all__ = ["Apply", "Binary", "Bracket", "Compare", "Group", "Name", "Node", "Number", "Unary"]
