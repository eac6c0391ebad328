"""Sums of terms with number coefficients, and expressions built in that form."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.expression import Call, Expr, Kind, Literal, call
from ...ir.rewriting import transform

Number = int | float


@dataclass(frozen=True, slots=True)
class Linear:
    """``sum(coefficient * term) + constant``; no term is a number, a sum or a multiple."""

    terms: tuple[tuple[Expr, Number], ...]
    constant: Number

    def scaled(self, factor: Number) -> Linear:
        """Every coefficient times ``factor``."""
        terms = tuple((t, c * factor) for t, c in self.terms if c * factor != 0)
        return Linear(terms, self.constant * factor if self.constant else 0)

    def plus(self, other: Linear) -> Linear:
        """The sum; terms that cancel are gone."""
        total = dict(self.terms)
        for term, coefficient in other.terms:
            total[term] = total.get(term, 0) + coefficient
        terms = tuple((t, c) for t, c in total.items() if c != 0)
        return Linear(terms, self.constant + other.constant)

    def without(self, term: Expr) -> Linear:
        """All but one term."""
        return Linear(tuple((t, c) for t, c in self.terms if t != term), self.constant)


def linear(expr: Expr) -> Linear:
    """``expr`` as a sum of terms."""
    match expr:
        case Literal(value):
            return Linear((), int(value) if isinstance(value, bool) else value)
        case Call("add", (a, b)):
            return linear(a).plus(linear(b))
        case Call("sub", (a, b)):
            return linear(a).plus(linear(b).scaled(-1))
        case Call("neg", (a,)):
            return linear(a).scaled(-1)
        case Call("mul", (a, b)):
            left, right = linear(a), linear(b)
            if not left.terms:
                return right.scaled(left.constant)
            if not right.terms:
                return left.scaled(right.constant)
            return Linear(((expr, 1),), 0)
        case Call("div", (a, Literal(value))) if value != 0:
            return linear(a).scaled(1.0 / value)
        case _:
            return Linear(((expr, 1),), 0)


def expression(form: Linear) -> Expr:
    """The sum written out: positive terms first, the constant last."""
    result: Expr | None = None
    ordered = sorted(form.terms, key=lambda item: item[1] < 0)
    for term, coefficient in ordered:
        size = abs(coefficient)
        part = term if size == 1 else call("mul", size, term)
        if result is None:
            result = part if coefficient > 0 else call("neg", part)
        else:
            result = call("add" if coefficient > 0 else "sub", result, part)
    if result is None:
        return Literal(form.constant)
    if form.constant == 0:
        return result
    return call("add" if form.constant > 0 else "sub", result, abs(form.constant))


def spread(expr: Expr) -> Expr:
    """``expr`` with products of sums written out, each in one order: (a + 1) * b --> a * b + b."""

    def change(node: Expr) -> Expr | None:
        match node:
            case Call("mul", (a, b)):
                left, right = linear(a), linear(b)
                return expression(_product(left, right)) if left.terms and right.terms else None
            case _:
                return None

    return transform(expr, change)


def _product(left: Linear, right: Linear) -> Linear:
    total = left.scaled(right.constant).plus(right.scaled(left.constant))
    total = Linear(total.terms, left.constant * right.constant)
    for a, x in left.terms:
        for b, y in right.terms:
            first, second = sorted((a, b), key=repr)
            total = total.plus(Linear(((call("mul", first, second), x * y),), 0))
    return total


def plus(*parts: Expr | Number) -> Expr:
    """The sum of the parts, simplified."""
    total = Linear((), 0)
    for part in parts:
        total = total.plus(linear(part if isinstance(part, Expr) else Literal(part)))
    return expression(total)


def times(expr: Expr, factor: Expr | Number) -> Expr:
    """The product, distributed over the sum where the factor is a number."""
    number = factor.value if isinstance(factor, Literal) else factor
    if isinstance(number, Expr):
        if isinstance(expr, Literal):
            return expression(linear(number).scaled(expr.value))
        return call("mul", expr, number)
    return expression(linear(expr).scaled(number))


def minus(expr: Expr) -> Expr:
    """The negative, simplified."""
    return expression(linear(expr).scaled(-1))


def floor_divided(expr: Expr, divisor: Expr | int) -> Expr:
    """``expr // divisor`` on integers, for a positive divisor."""
    by = divisor if isinstance(divisor, Expr) else Literal(divisor)
    if by == Literal(1):
        return expr
    if isinstance(expr, Literal) and isinstance(by, Literal):
        return Literal(int(expr.value) // int(by.value))
    return call("floordiv", expr, by)


def ceiling_divided(expr: Expr, divisor: Expr | int) -> Expr:
    """``expr / divisor`` rounded up, on integers, for a positive divisor."""
    return minus(floor_divided(minus(expr), divisor))


def is_integer(expr: Expr) -> bool:
    """Whether a value is an integer (or a truth value)."""
    return expr.kind <= Kind.INT
