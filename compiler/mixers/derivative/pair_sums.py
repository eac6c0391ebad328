"""Sums over the pairs of an attention as attentions of their own.

An adjoint that runs over pairs is linear in the weight of a pair, so a sum over keys (or over
queries) of it is a weighted sum: ``sum(w[i, j] * x, J)`` --> an attention over J with the weight
w and the value x. It keeps the mask, whose bounds then say which pairs are visited, in either
direction; all sums along one axis share a sweep. Queries that have several positions (the rows and
columns of a picture) are walked along all of them at once, as keys are: ``sum(w * x, Y, X)`` -->
an attention over Y_X, with y = y_x // X and x = y_x % X.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ....ir.expression import Expr, Index, Kind, Literal, Reduce, Ref, Size, call
from ....ir.mixer import Attention, Equation
from ....ir.names import names_in
from ....ir.rewriting import rebuild
from ...analysis.facts import placed
from ...analysis.gradients.partials import add, mul
from .adjoints import Adjoints
from .linear_terms import Around, NotLinearError, Term, linear_terms


@dataclass
class PairSums:
    """The weighted sums of one attention's pairs, collected by the axis that they run along.

    ``weight`` is what the symbol stands for at a visible pair; it is 0 at any other.
    """

    adjoints: Adjoints
    symbol: Ref
    weight: Expr
    mask: Expr | None
    walked: tuple[str, ...]  # the axes of pairs that a sweep may run along, the best first
    several: tuple[str, ...] = ()  # positions of a query that are walked as one
    sweeps: dict[str, list[Equation]] = field(default_factory=dict)
    product: str = ""  # the axis of all of ``several``, once a sweep has it

    def lowered(self, value: Expr, hint: str) -> Expr:
        """``value``, linear in the symbol, with its sums over pairs by sweeps.

        Where it is no sum of terms (rows of it are read elsewhere), the sums inside it are.
        """
        if self.symbol.name not in names_in(value):
            return value
        try:
            terms = linear_terms(value, self.symbol)
        except NotLinearError:
            return rebuild(value, lambda part: self._inside(part, hint))
        found: Expr | None = None
        for term in terms:
            found = add(found, self._of_term(term, hint))
        assert found is not None
        return found

    def _inside(self, value: Expr, hint: str) -> Expr:
        """The sums over pairs in a value, each once however often it is read, by sweeps."""
        if isinstance(value, Ref) or (isinstance(value, Reduce) and {*value.over} & {*self.walked}):
            return self.lowered(value, hint)
        return rebuild(value, lambda part: self._inside(part, hint))

    def close(self) -> None:
        """Emit the sweeps."""
        for over, outputs in self.sweeps.items():
            at = self._places() if over == self.product else {}
            score = placed(self.weight, at)
            self.adjoints.stage(
                Attention(
                    over=over,
                    score=score,
                    mask=None if self.mask is None else placed(self.mask, at),
                    weight=Ref("score", score.axes, Kind.REAL),
                    denominator=Literal(1),
                    sink=None,
                    gain=None,
                    outputs=tuple(replace(o, value=placed(o.value, at)) for o in outputs),
                )
            )
        self.sweeps = {}

    def _places(self) -> dict[str, Expr]:
        """Where a position along the product is along its factors, the last counting fastest."""
        found: dict[str, Expr] = {}
        rest: Expr = Index(self.product)
        for dim in reversed(self.several[1:]):
            found[dim] = call("mod", rest, Size(dim))
            rest = call("floordiv", rest, Size(dim))
        return {self.several[0]: rest, **found}

    def _of_term(self, term: Term, hint: str) -> Expr:
        summed = [dim for around in term.sums for dim in around.over]
        over = self._axis(term, summed)
        if over is None or len({*summed}) < len(summed):
            value: Expr = mul(self._at_a_pair(), term.factor)
            sums = term.sums
        elif over in self.several and self._sums_all(term):
            for dim in self.several:
                term = Term(*_without_sum(term, dim))
            value, sums = self._swept(self._product(), term.factor, hint), term.sums
        else:
            factor, sums = _without_sum(term, over)
            value = self._swept(over, factor, hint)
        for around in sums:
            if around.over or around.group:
                value = Reduce("sum", value, around.over, None, around.group)
        return value

    def _axis(self, term: Term, summed: list[str]) -> str | None:
        """The axis to sweep along; best one that no group is decided by, since a group that it
        decides is an axis more: of ``angle[T=j]`` the sums over I are by J, and then by T."""
        groups = {d for around in term.sums for _, index in around.group for d in index.axes}
        free = (dim for dim in self.walked if dim in summed and dim not in groups)
        return next(free, next((dim for dim in self.walked if dim in summed), None))

    def _sums_all(self, term: Term) -> bool:
        """Whether a term sums over all positions of a query, none of which decides a group."""
        summed = {dim for around in term.sums for dim in around.over}
        groups = {d for around in term.sums for _, index in around.group for d in index.axes}
        return summed.issuperset(self.several) and groups.isdisjoint(self.several)

    def _product(self) -> str:
        """The axis of all positions of a query."""
        if not self.product:
            self.product = self.adjoints.product(self.several)
        return self.product

    def _swept(self, over: str, value: Expr, hint: str) -> Ref:
        outputs = self.sweeps.setdefault(over, [])
        known = next((o for o in outputs if o.value == value), None)
        if known is None:
            known = Equation(self.adjoints.unused(hint), value)
            outputs.append(known)
        axes = self.symbol.axes | value.axes
        along = {*self.several} if over == self.product else {over}
        return Ref(known.name, axes - along, Kind.REAL)

    def _at_a_pair(self) -> Expr:
        if self.mask is None:
            return self.weight
        return call("where", self.mask, self.weight, 0.0)


def _without_sum(term: Term, over: str) -> tuple[Expr, tuple[Around, ...]]:
    """What is weighted in a sum over one axis, and the sums that are left around it.

    A group that the axis decides becomes an axis of what is weighted, with a 1 in its place.
    """
    factor, sums = term.factor, []
    for around in term.sums:
        group = []
        for dim, index in around.group:
            if over in index.axes:
                here = call("eq", Index(dim), index)
                factor = mul(factor, call("where", here, 1.0, 0.0))
            else:
                group.append((dim, index))
        kept = tuple(dim for dim in around.over if dim != over)
        sums.append(Around(kept, tuple(group)))
    return factor, tuple(sums)


__all__ = ["PairSums"]
