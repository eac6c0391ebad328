"""State-free coefficients as sums of products, so that two spellings of one value compare equal.

exp(a + b) is taken apart into exp(a) * exp(b) and put together again when it is written out, so
that no exponential of a part is ever computed alone unless the parts must go to different places.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from ....ir.expression import Call, Expr, Literal, call
from ....ir.rewriting import tree_size
from ..gradients.partials import negative

Number = int | float
LARGEST = 48  # products of sums with more terms stay as they are
HIGHEST = 4  # whole powers up to this are written out
Key = frozenset[tuple[Expr, int]]


@dataclass(frozen=True)
class Monomial:
    """``number`` times the factors; no factor is a number, a sum or a product."""

    number: Number
    factors: tuple[Expr, ...]

    @cached_property
    def key(self) -> Key:
        """The factors, whatever their order."""
        return frozenset(Counter(self.factors).items())

    @cached_property
    def axes(self) -> frozenset[str]:
        """The axes of all factors together."""
        return frozenset[str]().union(*(f.axes for f in self.factors))

    def times(self, other: Monomial) -> Monomial:
        """The product."""
        return Monomial(self.number * other.number, self.factors + other.factors)

    def split(self, chosen: Callable[[Expr], bool]) -> tuple[Monomial, Monomial]:
        """(the rest with the number, the chosen factors)."""
        inside = tuple(f for f in self.factors if chosen(f))
        outside = tuple(f for f in self.factors if not chosen(f))
        return Monomial(self.number, outside), Monomial(1, inside)


@dataclass(frozen=True, slots=True)
class Polynomial:
    """The sum of monomials with different keys, in order of appearance; none is zero."""

    monomials: tuple[Monomial, ...]

    @property
    def key(self) -> frozenset[tuple[Key, Number]]:
        """What two spellings of one polynomial share."""
        return frozenset((m.key, m.number) for m in self.monomials)

    @property
    def axes(self) -> frozenset[str]:
        """The axes of all monomials together."""
        return frozenset[str]().union(*(m.axes for m in self.monomials))

    def plus(self, other: Polynomial) -> Polynomial:
        """The sum."""
        return collected((*self.monomials, *other.monomials))

    def times(self, other: Polynomial) -> Polynomial:
        """The product, written out."""
        return collected(a.times(b) for a in self.monomials for b in other.monomials)

    def scaled(self, number: Number) -> Polynomial:
        """Every monomial times a number."""
        return self.times(Polynomial((Monomial(number, ()),)))


NOTHING = Literal(0)
ZERO = Polynomial(())
ONE = Polynomial((Monomial(1, ()),))


def collected(monomials: Iterable[Monomial]) -> Polynomial:
    """The sum of monomials, those with the same factors together."""
    found: dict[Key, Monomial] = {}
    for monomial in monomials:
        before = found.get(monomial.key)
        number = monomial.number + (before.number if before else 0)
        found[monomial.key] = Monomial(number, (before or monomial).factors)
    return Polynomial(tuple(m for m in found.values() if m.number != 0))


def polynomial(expr: Expr) -> Polynomial:
    """``expr`` as a sum of products; what is neither is a factor as it stands."""
    match expr:
        case Literal(value) if math.isfinite(value):
            return collected((Monomial(int(value) if isinstance(value, bool) else value, ()),))
        case Call("add", (a, b)):
            return _short(polynomial(a).plus(polynomial(b)), expr)
        case Call("sub", (a, b)):
            return _short(polynomial(a).plus(polynomial(b).scaled(-1)), expr)
        case Call("neg", (a,)):
            return polynomial(a).scaled(-1)
        case Call("mul", (a, b)):
            return _product(_part(a), _part(b))
        case Call("div", (a, b)):
            below = _inverse(polynomial(b))
            return _product(_part(a), (below, below))
        case Call("pow", (a, Literal(int(n)))) if 1 <= n <= HIGHEST:
            result = base = _part(a)
            for _ in range(n - 1):
                product = _product(result, base)
                result = (product, _whole(result).times(_whole(base)))
            return result[0]
        case Call("exp", (x,)):
            return _exponential(x)
        case _:
            return Polynomial((Monomial(1, (expr,)),))


# A value written out, and as one product of what it is written with.
_Part = tuple[Polynomial, Polynomial]


def _part(expr: Expr) -> _Part:
    return polynomial(expr), Polynomial((Monomial(1, (expr,)),))


def _whole(part: _Part) -> Polynomial:
    expanded, as_it_is = part
    return expanded if len(expanded.monomials) == 1 else as_it_is


def _product(a: _Part, b: _Part) -> Polynomial:
    """The product, written out where that is not too long."""
    if len(a[0].monomials) * len(b[0].monomials) > LARGEST:
        return _whole(a).times(_whole(b))
    return a[0].times(b[0])


def _short(p: Polynomial, expr: Expr) -> Polynomial:
    """A sum, as one term where it is too long."""
    return p if len(p.monomials) <= LARGEST else Polynomial((Monomial(1, (expr,)),))


def _inverse(p: Polynomial) -> Polynomial:
    if len(p.monomials) != 1:
        return Polynomial((Monomial(1, (call("div", 1, written(p)),)),))
    (only,) = p.monomials
    factors = tuple(_reciprocal(f) for f in only.factors)
    return Polynomial((Monomial(1 / only.number, factors),))


def _reciprocal(factor: Expr) -> Expr:
    match factor:
        case Call("exp", (x,)):
            return call("exp", written(polynomial(x).scaled(-1)))
        case Call("div", (Literal(1), x)):
            return x
        case _:
            return call("div", 1, factor)


def _exponential(x: Expr) -> Polynomial:
    parts = polynomial(x).monomials
    if not parts:
        return ONE
    return Polynomial((Monomial(1, tuple(call("exp", written(Polynomial((m,)))) for m in parts)),))


def written(p: Polynomial) -> Expr:
    """The polynomial as an expression, with what all its terms share taken out."""
    if not p.monomials:
        return Literal(0)
    if len(p.monomials) == 1:
        return _term(p.monomials[0])
    shared = _shared(p.monomials)
    rest = [_without(m, shared) for m in p.monomials]
    first = next((m for m in rest if m.number > 0), rest[0])
    ordered = [first, *(m for m in rest if m is not first)]
    total = _term(ordered[0])
    for m in ordered[1:]:
        part = _term(Monomial(abs(m.number), m.factors))
        total = call("add" if m.number > 0 else "sub", total, part)
    return times(_term(Monomial(1, shared)), total)


def _shared(monomials: tuple[Monomial, ...]) -> tuple[Expr, ...]:
    common = Counter(monomials[0].factors)
    for m in monomials[1:]:
        common &= Counter(m.factors)
    return tuple(common.elements())


def _without(monomial: Monomial, shared: tuple[Expr, ...]) -> Monomial:
    left = Counter(shared)
    kept = []
    for factor in monomial.factors:
        if left[factor]:
            left[factor] -= 1
        else:
            kept.append(factor)
    return Monomial(monomial.number, tuple(kept))


def _term(monomial: Monomial) -> Expr:
    """One product; its exponentials become one."""
    exponents = [f.args[0] for f in monomial.factors if isinstance(f, Call) and f.fn == "exp"]
    joint: Expr = Literal(1)
    if exponents:
        total = ZERO
        for exponent in exponents:
            total = total.plus(polynomial(exponent))
        joint = call("exp", written(total)) if total.monomials else Literal(1)
    result: Expr = Literal(abs(monomial.number))
    for factor in monomial.factors:
        if isinstance(factor, Call) and factor.fn == "exp":
            result, joint = times(result, joint), Literal(1)
        else:
            result = times(result, factor)
    return result if monomial.number >= 0 else negative(result)


def times(a: Expr, b: Expr) -> Expr:
    """a * b, without a factor 1, 0 where one is, and with a sign in front of all."""
    for x, other in ((a, b), (b, a)):
        if isinstance(x, Literal) and x.value in (0, 1, -1):
            return {0: Literal(0), 1: other, -1: negative(other)}[int(x.value)]
    for x, other in ((a, b), (b, a)):
        if isinstance(x, Call) and x.fn == "neg":
            return negative(times(x.args[0], other))
    return call("mul", a, b)


def applied(coefficient: Expr, operand: Expr) -> Expr:
    """coefficient * operand; a division by something stays one of the product."""
    match coefficient:
        case Call("div", (above, below)):
            return call("div", applied(above, operand), below)
        case Call("neg", (x,)):
            return negative(applied(x, operand))
        case _:
            return times(coefficient, operand)


def plus(a: Expr, b: Expr) -> Expr:
    """a + b, without a 0 and without a sum of a negative."""
    if a == Literal(0):
        return b
    if b == Literal(0):
        return a
    if isinstance(b, Call) and b.fn == "neg":
        return call("sub", a, b.args[0])
    return call("add", a, b)


def tidy(expr: Expr) -> Expr:
    """``expr`` as a polynomial where that is shorter or has fewer axes, else as it stands."""
    new = written(polynomial(expr))
    better = new.axes < expr.axes or tree_size(new) < tree_size(expr)
    return new if better else expr
