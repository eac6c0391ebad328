"""Complex numbers, written as pairs of real expressions.

A complex value lives in the loader alone: what it becomes in the mixer are its two parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

from ....ir.expression import Expr, Index, Kind, Literal, Span, call

PARTS = ("_re", "_im")  # what follows a complex value's name in those of its parts


@dataclass(frozen=True)
class Complex(Expr):
    """re + i im."""

    re: Expr
    im: Expr

    @cached_property
    def axes(self) -> frozenset[str]:
        return self.re.axes | self.im.axes

    @cached_property
    def kind(self) -> Kind:
        return Kind.REAL

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.re, self.im)


def parts(value: Expr) -> tuple[Expr, ...]:
    """A real value by itself, or the two parts of a complex one."""
    return (value.re, value.im) if isinstance(value, Complex) else (value,)


def pair(value: Expr) -> tuple[Expr, Expr]:
    """The real and the imaginary part of any number."""
    return (value.re, value.im) if isinstance(value, Complex) else (value, Literal(0.0))


def together(values: Iterable[Expr]) -> Expr:
    """The value whose parts these are."""
    first, *rest = values
    return Complex(first, *rest) if rest else first


def by_parts(value: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """A linear function of a value; the parts of a complex one have the axes of both."""
    if not isinstance(value, Complex):
        return change(value)
    re, im = (_with_axes(part, value.axes) for part in parts(value))
    return Complex(change(re), change(im), span=value.span)


def _with_axes(part: Expr, axes: frozenset[str]) -> Expr:
    for dim in sorted(axes - part.axes):
        part = call("where", call("ge", Index(dim), 0), part, 0.0)
    return part


class NotReal(TypedDict):
    """The words of an error."""

    found: str
    allowed: str
    do: str


def not_real(what: str) -> NotReal:
    """The error where a complex number stands in the place of a real one."""
    return NotReal(
        found=f"{what} of a complex number",
        allowed="+ - * /, exp, abs, conj, where, sum, mean, cumsum, flip, stack, and reads",
        do="take a part of it: `real(z)` or `imag(z)`",
    )


# What the elementwise functions of complex numbers are, in terms of real ones.
COMPLEX = frozenset("add sub mul div neg exp abs where detach".split())
RealCall = Callable[..., Expr]


def complex_call(real: RealCall, fn: str, args: tuple[Expr, ...], span: Span | None) -> Expr:
    """An elementwise call where an argument is complex; ``real`` makes a call of real values."""

    def of(name: str, *values: Expr | float) -> Expr:
        return real(name, *values, span=span)

    match fn, args:
        case "where", (condition, yes, no):
            (a, b), (c, d) = pair(yes), pair(no)
            return Complex(of("where", condition, a, c), of("where", condition, b, d), span=span)
        case "add" | "sub", (x, y):
            return _sum(of, fn, x, y, span)
        case "mul", (x, y):
            return _product(of, x, y, span)
        case "div", (x, y):
            return _quotient(of, x, y, span)
        case "neg" | "detach", (Complex(a, b),):
            return Complex(of(fn, a), of(fn, b), span=span)
        case "exp", (Complex(a, b),):
            size = of("exp", a)
            re, im = of("mul", size, of("cos", b)), of("mul", size, of("sin", b))
            return Complex(re, im, span=span)
        case "abs", (Complex() as x,):
            return of("sqrt", _square(of, x))
    raise AssertionError(fn)


def _sum(of: RealCall, fn: str, x: Expr, y: Expr, span: Span | None) -> Complex:
    """x + y or x - y; a real number changes the real part alone."""
    (a, b), (c, d) = pair(x), pair(y)
    if not isinstance(y, Complex):
        return Complex(of(fn, a, c), b, span=span)
    if not isinstance(x, Complex):
        return Complex(of(fn, a, c), d if fn == "add" else of("neg", d), span=span)
    return Complex(of(fn, a, c), of(fn, b, d), span=span)


def _product(of: RealCall, x: Expr, y: Expr, span: Span | None) -> Complex:
    (a, b), (c, d) = pair(x), pair(y)
    if not isinstance(x, Complex):
        return Complex(of("mul", a, c), of("mul", a, d), span=span)
    if not isinstance(y, Complex):
        return Complex(of("mul", a, c), of("mul", b, c), span=span)
    re = of("sub", of("mul", a, c), of("mul", b, d))
    return Complex(re, of("add", of("mul", a, d), of("mul", b, c)), span=span)


def _quotient(of: RealCall, x: Expr, y: Expr, span: Span | None) -> Complex:
    (a, b), (c, d) = pair(x), pair(y)
    if not isinstance(y, Complex):
        return Complex(of("div", a, c), of("div", b, c), span=span)
    square = _square(of, y)
    if not isinstance(x, Complex):
        re, im = of("mul", a, c), of("neg", of("mul", a, d))
    else:
        re = of("add", of("mul", a, c), of("mul", b, d))
        im = of("sub", of("mul", b, c), of("mul", a, d))
    return Complex(of("div", re, square), of("div", im, square), span=span)


def _square(of: RealCall, x: Complex) -> Expr:
    return of("add", of("mul", x.re, x.re), of("mul", x.im, x.im))


__all__ = [
    "COMPLEX",
    "PARTS",
    "Complex",
    "by_parts",
    "complex_call",
    "not_real",
    "pair",
    "parts",
    "together",
]
