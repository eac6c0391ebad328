"""How calls of complex numbers, systems of equations and derivatives become terms."""

from __future__ import annotations

from collections.abc import Callable
from math import pi

from ....ir.expression import Expr, Index, Literal, Size, Solve, call
from ..text.source import listed
from ..text.surface import Name
from .arguments import Arguments
from .complexes import Complex, by_parts, pair
from .reading import scope_dim


def linear(build: Callable[[Arguments], Expr]) -> Callable[[Arguments], Expr]:
    """The builder for a function that takes a complex value's parts one by one."""

    def call_linear(a: Arguments) -> Expr:
        return by_parts(a.value(0), lambda part: build(a.given(0, part)))

    return call_linear


def complex_number(a: Arguments) -> Expr:
    """``complex(a, b)``: a + i b."""
    re, im = a.values()
    return Complex(*a.dims.align(re, im), span=a.span)


def real(a: Arguments) -> Expr:
    """``real(z)``."""
    return pair(a.value(0))[0]


def imag(a: Arguments) -> Expr:
    """``imag(z)``; 0 of a real number."""
    return pair(a.value(0))[1]


def conj(a: Arguments) -> Expr:
    """``conj(z)``."""
    value = a.value(0)
    if not isinstance(value, Complex):
        return value
    return Complex(value.re, call("neg", value.im), span=a.span)


def transformed(sign: int) -> Callable[[Arguments], Expr]:
    """``dft(x, T=F)``: the sum over T of x e^(sign 2 pi i t f / T); its mean for ``idft``."""

    def build(a: Arguments) -> Expr:
        value = a.value(0)
        if not a.axes:
            do = f"name the axis and that of the frequencies: `{a.function.signature}`"
            raise a.error(a.span, f"`{a.node.function}` along no axis", do=do)
        for key, node in a.axes:
            over, row = scope_dim(key, a.scope), scope_dim(node, a.scope)
            if over is None or row is None or over == row or row in value.axes:
                raise a.error(
                    node.span,
                    f"`{a.node.function}` along {key.name} to no axis of its own",
                    allowed=a.function.signature,
                )
            if over not in value.axes:
                has = listed(sorted(value.axes)) or "none"
                raise a.error(
                    a.place(0), f"a value without {over} is transformed", allowed=f"its axes: {has}"
                )
            _of_one_length(a, over, row)
            value = _along(a, value, over, row, sign)
        return value

    return build


def _of_one_length(a: Arguments, one: str, other: str) -> None:
    if not a.dims.equal(one, other):
        found = f"`{a.node.function}` along {one} and {other}, which have two lengths"
        raise a.error(a.span, found, do="give them one under `dims`")


def _along(a: Arguments, value: Expr, over: str, row: str, sign: int) -> Complex:
    """The transform of a value along one axis."""

    def of(fn: str, *values: Expr | float) -> Expr:
        return a.dims.call(fn, *values, span=a.span)

    place = of("mod", of("mul", Index(over), Index(row)), Size(over))
    angle = of("div", of("mul", Literal(2 * pi), place), Size(over))
    cosine, sine = of("cos", angle), of("sin", angle)
    x, y = pair(value)
    re, im = of("mul", x, cosine), of("mul", x, sine if sign > 0 else of("neg", sine))
    if isinstance(value, Complex):
        x, y = a.dims.align(x, y)
        re = of("sub" if sign > 0 else "add", re, of("mul", y, sine))
        im = of("add", of("mul", y, cosine), im)
    parts: list[Expr] = [a.dims.reduce("sum", part, (over,), None, (), a.span) for part in (re, im)]
    if sign > 0:
        parts = [of("div", part, Size(over)) for part in parts]
    return Complex(*parts, span=a.span)


def solve(a: Arguments) -> Expr:
    """``solve(A, b, D=P)``: the x with P for which ``sum(A * x, P) == b``."""
    matrix, vector = a.values()
    if len(a.axes) != 1:
        do = "name the axis of b and that of x: `solve(A, b, D=P)`"
        raise a.error(a.span, "`solve` with no pair of axes", allowed=a.function.signature, do=do)
    ((key, node),) = a.axes
    left, right = scope_dim(key, a.scope), scope_dim(node, a.scope)
    if left is None or right is None or left == right:
        raise a.error(
            node.span, f"`solve` along {key.name} for no other axis", allowed=a.function.signature
        )
    matrix, vector = a.dims.align(matrix, vector)
    for number, value, needed in ((0, matrix, {left, right}), (1, vector, {left})):
        if missing := sorted(needed - value.axes):
            raise a.error(
                a.place(number),
                f"`solve` along {left} and {right} of a value without {missing[0]}",
                allowed=f"its axes: {listed(sorted(value.axes)) or 'none'}",
            )
    if right in vector.axes:
        raise a.error(a.place(1), f"the right-hand side of `solve` has {right} already")
    _of_one_length(a, left, right)
    return Solve(matrix, vector, left, right, span=a.span)


def grad(a: Arguments) -> Expr:
    """``grad(loss, z)``: the derivative of the summed loss by a state or a name of the step."""
    gradient, node = a.scope.find_gradient(), a.node.args[1]
    if gradient is None:
        raise a.error(
            a.span,
            "`grad` outside the step of a recurrence",
            allowed="grad(loss, z) in a step, z a state or a name of the step",
        )
    if not isinstance(node, Name):
        raise a.error(node.span, "`grad` by an expression", do="name it in a line before: `z = …`")
    return gradient(a.value(0), node.name, node.span)


__all__ = ["complex_number", "conj", "grad", "imag", "linear", "real", "solve", "transformed"]
