"""Values that are linear in states: sums of coefficient * (a state, or a contraction of it)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from ....ir.expression import Expr, Literal, Read, Reduce, Ref, Size, call
from .polynomial import NOTHING, Monomial, Polynomial, plus, polynomial, times, written

Moved = tuple[tuple[str, Expr], ...]


class NotLinearError(Exception):
    """A value is not linear in the states; ``term`` is what stands in the way."""

    def __init__(self, term: Expr, reason: str) -> None:
        super().__init__(reason)
        self.term = term
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Term:
    """``coefficient * sum(weight * S[moved], over)``, or ``coefficient * S[moved]``.

    The coefficient may have axes of the same name as ``over``: it stands outside of the sum.
    """

    coefficient: Expr
    state: Ref
    moved: Moved = ()
    weight: Expr | None = None
    over: tuple[str, ...] = ()

    @property
    def key(self) -> Hashable:
        """What terms share that differ by their coefficients alone."""
        weight = None if self.weight is None else polynomial(self.weight).key
        return self.state, frozenset(self.moved), weight, frozenset(self.over)

    @property
    def reach(self) -> frozenset[str]:
        """The axes under the sum."""
        axes = self.state.axes - {dim for dim, _ in self.moved}
        axes = axes.union(*(index.axes for _, index in self.moved))
        return axes if self.weight is None else axes | self.weight.axes

    @property
    def axes(self) -> frozenset[str]:
        """The axes that the sum leaves."""
        return self.reach - set(self.over)

    @property
    def operand(self) -> Expr:
        """The term without its coefficient, as an expression."""
        base: Expr = Read(self.state, self.moved) if self.moved else self.state
        if not self.over:
            return base
        return Reduce("sum", times(self.weight or Literal(1), base), self.over)

    @property
    def value(self) -> Expr:
        """The term as an expression."""
        return times(self.coefficient, self.operand)


@dataclass(frozen=True, slots=True)
class Superposition:
    """The sum of the terms and of ``free``, which has no state in it."""

    terms: tuple[Term, ...] = ()
    free: Expr = NOTHING

    def plus(self, other: Superposition) -> Superposition:
        """The sum; what cancels is gone."""
        found: dict[Hashable, Term] = {term.key: term for term in self.terms}
        for term in other.terms:
            before = found.get(term.key)
            if before is not None:
                term = replace(before, coefficient=plus(before.coefficient, term.coefficient))
            found[term.key] = term
        kept = tuple(t for t in found.values() if polynomial(t.coefficient).monomials)
        return Superposition(kept, plus(self.free, other.free))

    def scaled(self, factor: Expr) -> Superposition:
        """Every part times a state-free factor."""
        terms = tuple(replace(t, coefficient=times(factor, t.coefficient)) for t in self.terms)
        return Superposition(terms, times(factor, self.free))

    def divided(self, by: Expr) -> Superposition:
        """Every part divided by a state-free value."""
        return self.mapped(lambda x: x if x == Literal(0) else call("div", x, by))

    def mapped(self, change: Callable[[Expr], Expr]) -> Superposition:
        """Every coefficient and the free part changed by a linear function."""
        terms = tuple(replace(t, coefficient=change(t.coefficient)) for t in self.terms)
        return Superposition(terms, change(self.free))


def chosen(condition: Expr, yes: Superposition, no: Superposition) -> Superposition:
    """``where(condition, yes, no)``, coefficient by coefficient."""

    def pick(a: Expr, b: Expr) -> Expr:
        return a if a == b else call("where", condition, a, b)

    others = {term.key: term for term in no.terms}
    zero: Expr = Literal(0)
    terms: list[Term] = []
    for term in yes.terms:
        other = others.pop(term.key, None)
        second = other.coefficient if other else zero
        terms.append(replace(term, coefficient=pick(term.coefficient, second)))
    terms += [replace(t, coefficient=pick(zero, t.coefficient)) for t in others.values()]
    return Superposition(tuple(terms), pick(yes.free, no.free))


def contracted(value: Superposition, over: Sequence[str], where: Expr | None) -> Superposition:
    """``sum(value, over, where=where)``."""
    total = Superposition(free=summed(_admitted(value.free, where), over))
    for term in value.terms:
        total = total.plus(_contract(term, over, where))
    return total


def _admitted(value: Expr, where: Expr | None) -> Expr:
    if where is None or value == Literal(0):
        return value
    return call("where", where, value, 0)


def summed(value: Expr, over: Sequence[str]) -> Expr:
    """``sum(value, over)``, with what does not have these axes outside."""
    if value == Literal(0):
        return value
    p = polynomial(value)
    if len(p.monomials) != 1:
        present = tuple(axis for axis in over if axis in value.axes)
        return times(_sizes(over, value.axes), Reduce("sum", value, present) if present else value)
    outer, inner = p.monomials[0].split(lambda f: bool(f.axes & set(over)))
    result = times(_expr(outer), _sizes(over, inner.axes))
    present = tuple(axis for axis in over if axis in inner.axes)
    return times(result, Reduce("sum", _expr(inner), present)) if present else result


def _sizes(over: Sequence[str], axes: frozenset[str]) -> Expr:
    """What the sum over axes that a value does not have multiplies it by."""
    result: Expr = Literal(1)
    for axis in over:
        if axis not in axes:
            result = times(result, Size(axis))
    return result


def _expr(monomial: Monomial) -> Expr:
    return written(Polynomial((monomial,))) if monomial.number else Literal(0)


def _contract(term: Term, over: Sequence[str], where: Expr | None) -> Superposition:
    """One term under a sum: what has the summed axes goes in, or is summed by itself."""
    bound = tuple(axis for axis in over if axis in term.axes)
    loose = tuple(axis for axis in over if axis not in term.axes)
    total = Superposition()
    if not bound:
        coefficient = summed(_admitted(term.coefficient, where), loose)
        return Superposition((replace(term, coefficient=coefficient),))
    if not loose and not term.over:
        weight = _admitted(term.coefficient, where)
        inside = replace(term, coefficient=Literal(1), weight=weight, over=bound)
        return Superposition((inside,))
    for monomial in polynomial(_admitted(term.coefficient, where)).monomials:
        outer, inner = monomial.split(lambda f: bool(f.axes & set(bound)))
        if inner.axes & (set(loose) | set(term.over)):
            raise NotLinearError(term.value, "two contractions that share an axis")
        weight = times(_expr(inner), term.weight or Literal(1))
        one = Term(
            summed(_expr(outer), loose), term.state, term.moved, weight, (*term.over, *bound)
        )
        total = total.plus(Superposition((one,)))
    return total


def read(value: Superposition, at: Moved, fill: float) -> Superposition:
    """``value[at]``: every part read at its own axes among those of ``at``.

    Outside its range a part reads 0, and so does the product; every axis must be one of a part's.
    """
    total = Superposition(free=_read(value.free, at))
    dims = {dim for dim, _ in at}
    arriving = frozenset[str]().union(*(index.axes for _, index in at))
    for term in value.terms:
        weight = Literal(1) if term.weight is None else term.weight
        plain = term.state.axes - {dim for dim, _ in term.moved}
        known = plain | weight.axes | term.coefficient.axes
        inner = frozenset[str]().union(*(index.axes for _, index in term.moved))
        bad = (dims | arriving) & set(term.over) or dims & inner or not dims <= known
        if fill != 0 or bad:
            raise NotLinearError(term.value, "a read of a state that is not at its own axes")
        own = tuple((dim, index) for dim, index in at if dim in plain)
        moved = (*term.moved, *own)
        inside = None if term.weight is None else _read(weight, at)
        one = Term(_read(term.coefficient, at), term.state, moved, inside, term.over)
        total = total.plus(Superposition((one,)))
    return total


def _read(value: Expr, at: Moved) -> Expr:
    own = tuple((dim, index) for dim, index in at if dim in value.axes)
    return Read(value, own) if own else value
