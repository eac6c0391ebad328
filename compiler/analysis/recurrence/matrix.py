"""Matrix states: S' = decay * S + sum of u * sum(w * S, axis) + sum of k * v, from a superposition.

Which of a state's axes is the transition axis follows from what the coefficients have: the axis
that corrections sum over, else the one for which the most axes are columns that nothing mixes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ....ir.expression import Call, Expr, Literal
from ....ir.mixer import State
from ....ir.recurrence_forms import Matrix
from .logarithm import logarithm
from .polynomial import (
    NOTHING,
    ZERO,
    Monomial,
    Number,
    Polynomial,
    collected,
    plus,
    polynomial,
    tidy,
    written,
)
from .superposition import NotLinearError, Superposition, Term

Pair = tuple[Expr, Expr]
DEEPEST = 4  # choices in one product that are opened


def matrix(state: State, value: Superposition, hints: Sequence[str]) -> Matrix | None:
    """The form of a single state's new value, its axis chosen; ``hints`` are axes that reads sum.

    None where no choice leaves an axis of columns, though the state has several axes.

    Raises:
        NotLinearError: a contraction that is no rank-one correction.
    """
    parts = Parts.of(value)
    forms = [_along(state, axis, parts) for axis in _candidates(state, parts.contractions, hints)]
    best = max(forms, key=lambda form: len(form.value_axes), default=None)
    if best is None or (len(own_axes(state)) > 1 and not best.value_axes):
        return None
    return best


def own_axes(state: State) -> tuple[str, ...]:
    """The axes that the spec lists for a state, or all of them where it lists none."""
    listed = tuple(axis for axis in state.listed if axis in state.dims)
    return listed or tuple(sorted(state.dims))


@dataclass(frozen=True, slots=True)
class Parts:
    """A superposition in one state's terms: what scales it, what contracts it, what is written."""

    decay: Expr
    contractions: tuple[Term, ...]
    free: Expr

    @staticmethod
    def of(value: Superposition) -> Parts:
        """The parts of a value, whatever state each term is in."""
        decay: Expr = NOTHING
        for term in value.terms:
            if term.moved or len(term.over) > 1:
                raise NotLinearError(term.value, "no decay and no correction of rank one")
            if not term.over:
                decay = plus(decay, term.coefficient)
        return Parts(tidy(decay), tuple(t for t in value.terms if t.over), value.free)


def _candidates(state: State, contractions: tuple[Term, ...], hints: Sequence[str]) -> list[str]:
    forced = dict.fromkeys(term.over[0] for term in contractions)
    if len(forced) > 1:
        raise NotLinearError(contractions[-1].value, "corrections along two axes")
    if forced:
        return list(forced)
    own = own_axes(state)
    return sorted(own, key=lambda axis: (axis not in hints, own.index(axis)))


def _along(state: State, axis: str, parts: Parts) -> Matrix:
    taken = parts.decay.axes.union(*(_axes(term) for term in parts.contractions))
    values = tuple(a for a in own_axes(state) if a != axis and a not in taken)
    pairs, values = outer_products(parts.free, axis, values)
    return Matrix(
        state,
        axis,
        parts.decay,
        logarithm(parts.decay),
        corrections(parts.contractions, axis),
        pairs,
        values,
    )


def _axes(term: Term) -> frozenset[str]:
    weight = frozenset[str]() if term.weight is None else polynomial(term.weight).axes
    return polynomial(term.coefficient).axes | weight


def corrections(terms: Iterable[Term], axis: str) -> tuple[Pair, ...]:
    """The pairs (u, w) of contractions along the axis, those that share u or w put together."""
    found: dict[object, tuple[Polynomial, Polynomial]] = {}
    for term in _aligned(terms, axis):
        u, w = _signed(polynomial(term.coefficient), polynomial(term.weight or Literal(1)))
        before = found.get(u.key)
        found[u.key] = (u, w if before is None else before[1].plus(w))
    return tuple((written(u), written(w)) for u, w in found.values() if w.monomials)


def _signed(u: Polynomial, w: Polynomial) -> tuple[Polynomial, Polynomial]:
    """(u, w) with the number of u in w, its sign where all its terms are negative."""
    if len(u.monomials) == 1:
        (only,) = u.monomials
        return Polynomial((Monomial(1, only.factors),)), w.scaled(only.number)
    if all(m.number < 0 for m in u.monomials):
        return u.scaled(-1), w.scaled(-1)
    return u, w


def _aligned(terms: Iterable[Term], axis: str) -> Iterator[Term]:
    """The terms, those whose w differ by a factor without the axis with one w."""
    cores: dict[object, list[tuple[Term, Monomial, Monomial]]] = {}
    for term in terms:
        p = polynomial(term.weight or Literal(1))
        if len(p.monomials) == 1:
            scalar, core = p.monomials[0].split(lambda f: axis in f.axes)
        else:
            scalar, core = Monomial(1, ()), Monomial(1, (written(p),))
        cores.setdefault(core.key, []).append((term, scalar, core))
    for members in cores.values():
        if len(members) == 1:
            yield members[0][0]
            continue
        total = ZERO
        for term, scalar, _ in members:
            total = total.plus(polynomial(term.coefficient).times(Polynomial((scalar,))))
        first, _, core = members[0]
        if total.monomials:
            weight = written(Polynomial((core,)))
            yield Term(written(total), first.state, first.moved, weight, first.over)


def outer_products(
    free: Expr, axis: str, values: tuple[str, ...]
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """(writes, columns): ``free`` as a sum of k * v, and the axes of ``values`` that v can have."""
    monomials = polynomial(free).monomials
    while True:
        opened = tuple(m for one in monomials for m in _opened(one, axis, values))
        mixed = frozenset[str]().union(*(_left_axes(m, axis) for m in opened))
        if not mixed & set(values):
            return _grouped(_halves(m, axis, values) for m in opened), values
        values = tuple(a for a in values if a not in mixed)


def _left_axes(monomial: Monomial, axis: str) -> frozenset[str]:
    return frozenset[str]().union(*(f.axes for f in monomial.factors if axis in f.axes))


def _opened(
    monomial: Monomial, axis: str, values: tuple[str, ...], depth: int = DEEPEST
) -> tuple[Monomial, ...]:
    """Choices as factors 0 or 1: where(c, k * v, 0) --> where(c, 1, 0) * k * v."""

    def mixed(value: Expr) -> bool:
        return axis in value.axes and bool(value.axes & set(values))

    for factor in monomial.factors if depth else ():
        match factor:
            case Call("where", (c, yes, no)) if mixed(factor) and not mixed(c):
                rest = list(monomial.factors)
                rest.remove(factor)
                base = Polynomial((Monomial(monomial.number, tuple(rest)),))
                total = ZERO
                for picked, value in (((1, 0), yes), ((0, 1), no)):
                    switch = Call("where", (c, Literal(picked[0]), Literal(picked[1])))
                    part = Polynomial((Monomial(1, (switch,)),)).times(polynomial(value))
                    total = total.plus(base.times(part))
                deeper = (_opened(one, axis, values, depth - 1) for one in total.monomials)
                return tuple(m for opened in deeper for m in opened)
    return (monomial,)


def is_choice(factor: Expr) -> bool:
    """Whether a factor is 1 or 0, by a condition: what a choice between values was opened into."""
    match factor:
        case Call("where", (_, Literal() as yes, Literal() as no)):
            return {yes.value, no.value} == {0, 1}
    return False


def _halves(monomial: Monomial, axis: str, values: tuple[str, ...]) -> tuple[Monomial, Monomial]:
    """(k, v) of a product; what has neither's axes goes to k, but exponentials stay together."""
    right = [f for f in monomial.factors if axis not in f.axes and f.axes & set(values)]
    left_exp = any(_is_exp(f) and axis in f.axes for f in monomial.factors)
    right_exp = any(_is_exp(f) for f in right)
    if right_exp and not left_exp:
        right += [f for f in monomial.factors if _is_exp(f) and f not in right]
    left = Monomial(1, tuple(f for f in monomial.factors if f not in right))
    return left, Monomial(monomial.number, tuple(f for f in monomial.factors if f in right))


def _is_exp(factor: Expr) -> bool:
    return isinstance(factor, Call) and factor.fn == "exp"


def _grouped(pairs: Iterable[tuple[Monomial, Monomial]]) -> tuple[Pair, ...]:
    by_left: dict[object, tuple[Monomial, list[Monomial]]] = {}
    for left, right in pairs:
        by_left.setdefault(left.key, (left, []))[1].append(right)
    by_right: dict[object, tuple[Polynomial, Polynomial]] = {}
    for left, rights in by_left.values():
        total, number = _primitive(collected(rights))
        scaled = Polynomial((Monomial(number, left.factors),))
        before = by_right.get(total.key, (total, ZERO))[1]
        by_right[total.key] = (total, before.plus(scaled))
    halves = [_signed(k, v) for v, k in by_right.values() if k.monomials and v.monomials]
    return tuple((written(k), written(v)) for k, v in halves)


def _primitive(p: Polynomial) -> tuple[Polynomial, Number]:
    """(q, number) with p == number * q, and 1 before the first term of q."""
    number = p.monomials[0].number if p.monomials else 1
    return Polynomial(
        tuple(Monomial(_divided(m.number, number), m.factors) for m in p.monomials)
    ), number


def _divided(number: Number, by: Number) -> Number:
    if isinstance(number, int) and isinstance(by, int) and number % by == 0:
        return number // by
    return number / by
