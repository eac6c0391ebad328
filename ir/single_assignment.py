"""The lines of a step in single assignment, as data: a version of a name per assignment."""

from __future__ import annotations

from dataclasses import dataclass

from .expression import Expr, Ref
from .mixer import State
from .node import At, Point


def before_row(state: State, dims: frozenset[str] | None = None) -> Ref:
    """A state as the row finds it, before any reset; with ``dims``, in every row at once."""
    return _at(state, At.BEFORE, dims)


def after_row(state: State, dims: frozenset[str] | None = None) -> Ref:
    """A state as the row leaves it; with ``dims``, in every row at once."""
    return _at(state, At.AFTER, dims)


def point_name(state: str, at: At) -> str:
    """The name of a state before or after a row."""
    return f"{state}.{at.value}"


def _at(state: State, at: At, dims: frozenset[str] | None) -> Ref:
    axes = state.dims if dims is None else dims
    return Ref(point_name(state.name, at), axes, state.kind, Point(state.name, at))


@dataclass(frozen=True, slots=True)
class Version:
    """``ref = value``; ``name`` is what the step calls it."""

    ref: Ref
    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Handed:
    """A state in an inner loop: its value before the loop, at the start of a round, at the end of
    one, and after the loop."""

    before: Expr
    start: Ref
    end: Expr
    after: Ref


@dataclass(frozen=True, slots=True)
class Repeated:
    """An inner loop; ``own`` pairs a name made in it, of a round, with the same name made whole."""

    over: str
    lines: tuple[Version | Repeated, ...]
    states: tuple[Handed, ...]
    own: tuple[tuple[Ref, Ref], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A step in single assignment.

    ``before`` are the states as the row above left them (before any reset), ``after`` as this row
    leaves them; ``own`` are the step's own names with their last versions.
    """

    lines: tuple[Version | Repeated, ...]
    before: tuple[tuple[str, Ref], ...]
    after: tuple[tuple[str, Expr], ...]
    own: tuple[tuple[str, Ref], ...]
