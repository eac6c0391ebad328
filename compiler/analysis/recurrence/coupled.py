"""Matrix states of one shape that mix by scalars of the row: momentum, linear memories."""

from __future__ import annotations

from collections.abc import Sequence

from ....ir.expression import Expr, Literal
from ....ir.mixer import State
from ....ir.recurrence_forms import Coupled
from ....ir.single_assignment import before_row
from .matrix import corrections, outer_products, own_axes
from .polynomial import ZERO, Polynomial, polynomial, written
from .superposition import Superposition, Term


def coupled(
    states: Sequence[State], values: Sequence[Superposition], hints: Sequence[str]
) -> Coupled | None:
    """The form of several states' new values; None where they are not coupled by scalars."""
    if any(s.dims != states[0].dims for s in states):
        return None
    terms = [term for value in values for term in value.terms]
    if any(t.moved or len(t.over) > 1 for t in terms):
        return None
    own = own_axes(states[0])
    forced = {t.over[0] for t in terms if t.over}
    if len(forced) > 1 or len(own) < 2:
        return None
    order = sorted(own, key=lambda axis: (axis not in forced, axis not in hints, own.index(axis)))
    for axis in order[:1] if forced else order:
        form = _along(axis, own, states, values)
        if form is not None:
            return form
    return None


def _along(
    axis: str, own: tuple[str, ...], states: Sequence[State], values: Sequence[Superposition]
) -> Coupled | None:
    taken: set[str] = set()
    for term in (t for value in values for t in value.terms):
        axes = polynomial(term.coefficient).axes
        if not term.over and axis in axes:
            return None
        weight = frozenset[str]() if term.weight is None else polynomial(term.weight).axes
        taken |= axes | weight
    columns = tuple(a for a in own if a != axis and a not in taken)
    for value in values:
        _, columns = outer_products(value.free, axis, columns)
    if not columns:
        return None
    return Coupled(
        tuple(states),
        axis,
        tuple(tuple(_decay(value, s) for s in states) for value in values),
        tuple(_corrections(value, states, axis) for value in values),
        tuple(outer_products(value.free, axis, columns)[0] for value in values),
        columns,
    )


def _decay(value: Superposition, state: State) -> Expr | None:
    total: Polynomial = ZERO
    for term in value.terms:
        if not term.over and _of(term, state):
            total = total.plus(polynomial(term.coefficient))
    return written(total) if total.monomials else None


def _corrections(
    value: Superposition, states: Sequence[State], axis: str
) -> tuple[tuple[Expr, Expr, str], ...]:
    return tuple(
        (u, w, state.name)
        for state in states
        for u, w in corrections([t for t in value.terms if t.over and _of(t, state)], axis)
        if u != Literal(0)
    )


def _of(term: Term, state: State) -> bool:
    return term.state.name == before_row(state).name
