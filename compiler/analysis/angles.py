"""Angles as polynomials in indices and sizes, counted in turns of 2 pi.

What decides is arithmetic: ``2 * pi * (t * f % T) / T`` is t f / T of a turn, since whole turns
don't count, and so is ``pi * t * f / (T / 2)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import pi

from ...ir.expression import Call, Expr, Index, Kind, Literal, Size, call, product_of

# Atoms with their powers, in one order; what it is multiplied by is kept beside it.
Monomial = tuple[tuple[Expr, int], ...]
Polynomial = Mapping[Monomial, float]
_ONE: Monomial = ()
_ROUNDING = 1e-12  # relative: what float64 does to a product of a few numbers, and a margin
_LARGEST = 1 << 22  # denominator of a part of a turn


@dataclass(frozen=True)
class Lengths:
    """The lengths of dims: numbers, lengths of other dims, or formulas."""

    fixed: Mapping[str, int]
    equal: Mapping[str, str]
    formulas: Mapping[str, Expr]

    def of(self, dim: str) -> Polynomial:
        """How many positions a dim has."""
        own = self.equal.get(dim, dim)
        fixed = self.fixed.get(own, self.fixed.get(dim))
        if fixed is not None:
            return {_ONE: float(fixed)}
        if own in self.formulas and self.formulas[own] != Size(own):
            return polynomial(self.formulas[own], self)
        return {((Size(own), 1),): 1.0}

    def number(self, dim: str) -> int | None:
        """The length, where it is a number."""
        length = self.of(dim)
        return round(length.get(_ONE, 0.0)) if length.keys() <= {_ONE} else None

    def are_equal(self, dim: str, other: str) -> bool:
        """Whether two dims always have as many positions."""
        return dim == other or self.of(dim) == self.of(other)


def polynomial(expr: Expr, lengths: Lengths) -> Polynomial:
    """An expression as a sum of products; what is neither is an atom."""
    match expr:
        case Literal(value):
            return {_ONE: float(value)} if value else {}
        case Size(dim):
            return lengths.of(dim)
        case Call("add", (a, b)):
            return _sum(polynomial(a, lengths), polynomial(b, lengths))
        case Call("sub", (a, b)):
            return _sum(polynomial(a, lengths), polynomial(b, lengths), -1.0)
        case Call("neg", (a,)):
            return _sum({}, polynomial(a, lengths), -1.0)
        case Call("mul", (a, b)):
            return _product(polynomial(a, lengths), polynomial(b, lengths))
        case Call("pow", (a, Literal(int(power)))) if 0 <= power <= 4:
            factors = [polynomial(a, lengths)] * power
            return reduce(_product, factors, {_ONE: 1.0})
        case Call("div", (a, b)):
            divisor = polynomial(b, lengths)
            if len(divisor) == 1:
                return _product(polynomial(a, lengths), inverse(divisor))
    return {((expr, 1),): 1.0}


def turns(angle: Expr, lengths: Lengths) -> Polynomial:
    """An angle in turns: remainders of whole turns are what they are of, and whole turns are 0."""
    found = _product(polynomial(angle, lengths), {_ONE: 0.5 / pi})
    while (opened := _opened(found, lengths)) is not None:
        found = opened
    return {m: _rounded(c) for m, c in found.items() if not is_whole({m: c})}


def _opened(found: Polynomial, lengths: Lengths) -> Polynomial | None:
    """With one remainder taken for what it is of, where that is whole turns away."""
    for monomial, coefficient in found.items():
        for atom, power in monomial:
            match atom:
                case Call("mod", (a, b)) if power == 1:
                    rest = {_multiplied(monomial, ((atom, -1),)): coefficient}
                    if is_whole(_product(rest, polynomial(b, lengths))):
                        others = {m: c for m, c in found.items() if m != monomial}
                        return _sum(others, _product(rest, polynomial(a, lengths)))
    return None


def is_whole(found: Polynomial) -> bool:
    """Whether the value is an integer wherever it is taken."""
    return all(
        abs(c - round(c)) <= _ROUNDING * max(1.0, abs(c))
        and all(atom.kind <= Kind.INT and power > 0 for atom, power in monomial)
        for monomial, c in found.items()
    )


def times(found: Polynomial, other: Polynomial) -> Polynomial:
    """The product."""
    return {m: _rounded(c) for m, c in _product(found, other).items()}


def inverse(found: Polynomial) -> Polynomial:
    """One over a single product."""
    ((monomial, coefficient),) = found.items()
    return {tuple((atom, -power) for atom, power in monomial): 1.0 / coefficient}


def by_index(found: Polynomial, dim: str) -> tuple[Polynomial, Polynomial] | None:
    """a and b of ``a * index + b``, neither with the dim; None where there are no such."""
    index = Index(dim)
    first: dict[Monomial, float] = {}
    rest: dict[Monomial, float] = {}
    for monomial, coefficient in found.items():
        powers = dict(monomial)
        power = powers.pop(index, 0)
        if power not in (0, 1) or any(dim in atom.axes for atom in powers):
            return None
        (first if power else rest)[_ordered(powers)] = coefficient
    return first, rest


def integer_expression(found: Polynomial) -> Expr:
    """The expression of a polynomial that is whole."""
    terms = []
    for monomial, coefficient in found.items():
        atoms = [atom for atom, power in monomial for _ in range(power)]
        number = round(coefficient)
        factors = atoms if abs(number) == 1 and atoms else [Literal(abs(number)), *atoms]
        terms.append((number < 0, product_of(factors)))
    terms.sort(key=lambda term: term[0])
    if not terms:
        return Literal(0)
    (is_negative, made), *others = terms
    made = call("neg", made) if is_negative else made
    for is_negative, term in others:
        made = call("sub" if is_negative else "add", made, term)
    return made


def angle_expression(found: Polynomial) -> Expr:
    """2 pi times a polynomial of turns, with what is whole taken off before there is a product."""
    made: Expr | None = None
    for monomial, coefficient in found.items():
        part = _part(monomial, coefficient)
        made = part if made is None else call("add", made, part)
    return Literal(0.0) if made is None else made


def _part(monomial: Monomial, coefficient: float) -> Expr:
    above = {atom: power for atom, power in monomial if power > 0}
    below = {atom: -power for atom, power in monomial if power < 0}
    fraction = Fraction(coefficient).limit_denominator(_LARGEST)
    exact = abs(float(fraction) - coefficient) <= _ROUNDING * abs(coefficient)
    if above and exact and all(atom.kind <= Kind.INT for atom in (*above, *below)):
        number = integer_expression({_ordered(above): fraction.numerator})
        period = integer_expression({_ordered(below): fraction.denominator})
        return call("div", call("mul", 2 * pi, call("mod", number, period)), period)
    powers = [(atom, power) for atom, power in monomial for _ in range(abs(power))]
    made: Expr = Literal(2 * pi * coefficient)
    for atom, power in powers:
        made = call("mul" if power > 0 else "div", made, atom)
    return made


def _sum(a: Polynomial, b: Polynomial, factor: float = 1.0) -> Polynomial:
    total = dict(a)
    for monomial, coefficient in b.items():
        total[monomial] = total.get(monomial, 0.0) + factor * coefficient
    return {m: c for m, c in total.items() if c}


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    total: Polynomial = {}
    for left, x in a.items():
        total = _sum(total, {_multiplied(left, right): x * y for right, y in b.items()})
    return total


def _multiplied(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for atom, power in b:
        powers[atom] = powers.get(atom, 0) + power
    return _ordered({atom: power for atom, power in powers.items() if power})


def _ordered(powers: Mapping[Expr, int]) -> Monomial:
    return tuple(sorted(powers.items(), key=lambda one: str(one[0])))


def _rounded(coefficient: float) -> float:
    """A number that is whole but for rounding is whole."""
    near = round(coefficient)
    return (
        float(near) if abs(coefficient - near) <= _ROUNDING * max(1.0, abs(near)) else coefficient
    )


__all__ = [
    "Lengths",
    "Polynomial",
    "angle_expression",
    "by_index",
    "integer_expression",
    "inverse",
    "is_whole",
    "polynomial",
    "times",
    "turns",
]
