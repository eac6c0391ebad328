"""Contractions of matrix states, under names of their own."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import reduce

from ....ir.expression import Expr, Kind, Literal, Read, Ref
from ....ir.node import At
from ....ir.recurrence_forms import Reading
from .polynomial import Monomial, Polynomial, plus, polynomial, times, written
from .superposition import Term, summed


class WholeError(Exception):
    """A matrix state is used otherwise than by a contraction of one of its own axes."""

    def __init__(self, state: str, term: Expr) -> None:
        super().__init__(state)
        self.state = state
        self.term = term


@dataclass
class Readings:
    """The readings met so far; the same contraction is read once.

    ``own`` gives each matrix state's own axes, the transition axis first.
    """

    over: str
    own: dict[str, tuple[str, ...]] = field(default_factory=dict)
    found: dict[Hashable, Reading] = field(default_factory=dict)

    def settle(self, term: Term) -> Expr:
        """The operand of a term (its coefficient left out) as a reading.

        Raises:
            WholeError: it is no contraction of one own axis by a query without the others.
        """
        assert term.state.point is not None
        state, point = term.state.point.of, term.state.point.at
        own = self.own[state]
        axis = next((a for a in own if a in term.over), None)
        if axis is None or {dim for dim, _ in term.moved} & set(own):
            raise WholeError(state, term.value)
        parts = [
            self._settle_one(term, state, point is At.AFTER, axis, monomial)
            for monomial in self._parts(term, axis)
        ]
        return reduce(plus, parts)

    def _parts(self, term: Term, axis: str) -> tuple[Monomial, ...]:
        """The weight in one piece, or taken apart where more than the own axis is summed."""
        weight = term.weight or Literal(1)
        if len(term.over) > 1:
            return polynomial(weight).monomials
        if weight == Literal(1):
            return (Monomial(1, ()),)
        return (Monomial(1, (weight,)),)

    def _settle_one(
        self, term: Term, state: str, after: bool, axis: str, monomial: Monomial
    ) -> Expr:
        own = frozenset(self.own[state])
        others = tuple(a for a in term.over if a != axis)
        outer, inner = Monomial(1, ()), monomial
        if others:
            outer, inner = monomial.split(lambda f: axis in f.axes or not f.axes & set(own))
        if inner.axes & (own - {axis}) or (axis in outer.axes):
            raise WholeError(state, term.value)
        reading = self._reading(term, state, after, axis, written(Polynomial((inner,))))
        result = times(written(Polynomial((outer,))), reading)
        return summed(result, others) if others else result

    def _reading(self, term: Term, state: str, after: bool, axis: str, query: Expr) -> Expr:
        key = (state, after, axis, frozenset(term.moved), polynomial(query).key)
        if key not in self.found:
            dims = (Read(term.state, term.moved) if term.moved else term.state).axes
            axes = (dims | query.axes | {self.over}) - {axis}
            number = sum(1 for reading in self.found.values() if reading.state == state)
            ref = Ref(f"{state}.read{number}", axes, Kind.REAL)
            self.found[key] = Reading(ref, state, query, (axis,), after, term.moved)
        return self.found[key].ref
