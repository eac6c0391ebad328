"""Fourier sums: of a value times the cosine or sine of whole turns along the axis summed over.

``sum(x * cos(2 * pi * t * f / T), T)`` is one, for an axis T of T positions. What says so is the
angle (``angles``): linear in the index summed over, by an integer that does not depend on it over
the axis' length. What is added to such an angle comes out by the sums of cosine and sine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

from ...ir.expression import Call, Expr, Index, Kind, Literal, Reduce, call, product_of
from ...ir.transform import has_wave
from .angles import (
    Lengths,
    angle_expression,
    by_index,
    integer_expression,
    is_whole,
    times,
    turns,
)


@dataclass(frozen=True, slots=True)
class FourierSum:
    """``sign * factor`` times the sum over ``over`` of x * fn(2 pi over row / n), fn cos or sin.

    The results have the axis ``row``; with ``place`` that is ``over`` once more, to be read there.
    """

    sign: int
    factor: Expr
    fn: str
    x: Expr
    over: str
    row: str
    place: Expr | None = None


@dataclass(frozen=True, slots=True)
class _Wave:
    """A cosine or a sine of ``sign * 2 pi over row / n + angle``."""

    fn: str
    row: str
    sign: int
    place: Expr | None
    angle: Expr


def fourier_sums(expr: Reduce, lengths: Lengths) -> tuple[FourierSum, ...] | None:
    """The Fourier sums that ``expr``, a sum over one axis, is a sum of; None where it is none."""
    match expr:
        case Reduce("sum", x, (over,), None, ()) if expr.kind is Kind.REAL:
            made = [_of_product(factors, over, lengths) for factors in _expanded(x, over)]
            if all(made):
                return tuple(one for part in made if part is not None for one in part)
    return None


def one_axis_after_another(expr: Reduce, lengths: Lengths) -> Reduce | None:
    """A sum over several axes with a Fourier sum over one of them inside; None where none is.

    ``sum(x * cos(a) * cos(b), S, C)`` --> ``sum(cos(b) * sum(x * cos(a), C), S)``
    """
    if expr.op != "sum" or expr.where is not None or expr.group or len(expr.over) < 2:
        return None
    for axis in expr.over:
        others = tuple(d for d in expr.over if d != axis)
        terms = []
        for factors in _expanded(expr.x, axis):
            inside, outside = _along(factors, axis)
            inner = Reduce("sum", product_of(inside), (axis,)) if inside else None
            if inner is None or fourier_sums(inner, lengths) is None:
                break
            terms.append(call("mul", product_of(outside), inner) if outside else inner)
        else:
            whole = reduce(lambda a, b: call("add", a, b), terms)
            if all({*others} <= term.axes for term in terms):
                return Reduce("sum", whole, others)
    return None


def _expanded(x: Expr, over: str) -> list[list[Expr]]:
    """The products that a value is a sum of, as far as waves along ``over`` are in it."""
    if not has_wave(x, over):
        return [[x]]
    match x:
        case Call("add" | "sub" as fn, (a, b)):
            sign = [] if fn == "add" else [Literal(-1.0)]
            return [*_expanded(a, over), *([*sign, *part] for part in _expanded(b, over))]
        case Call("neg", (a,)):
            return [[Literal(-1.0), *part] for part in _expanded(a, over)]
        case Call("mul", (a, b)):
            right = _expanded(b, over)
            return [[*part, *other] for part in _expanded(a, over) for other in right]
        case Call("div", (a, b)) if over not in b.axes:
            return [[*part, call("div", 1.0, b)] for part in _expanded(a, over)]
    return [[x]]


def _of_product(factors: list[Expr], over: str, lengths: Lengths) -> tuple[FourierSum, ...] | None:
    """A product with one wave as Fourier sums: two where something is added to its angle."""
    waves = [f for f in factors if has_wave(f, over)]
    wave = _wave(waves[0], over, lengths) if len(waves) == 1 else None
    if wave is None:
        return None
    sign, rest = _signed([f for f in factors if f is not waves[0]])
    parts = [part for one in rest for part in _apart(one, over, wave.row)]
    inside, outside = _along(parts, over)
    x = product_of(inside)
    # A value that the axis lacks is summed to its multiple: no transform is worth it.
    if not inside or x.kind is not Kind.REAL or (wave.place is None and wave.row in x.axes):
        return None

    def made(fn: str, own: int, *more: Expr) -> FourierSum:
        factor = product_of([*outside, *more])
        return FourierSum(own * sign, factor, fn, x, over, wave.row, wave.place)

    turned = wave.sign if wave.fn == "sin" else 1
    if wave.angle == Literal(0.0):
        return (made(wave.fn, turned),)
    cosine, sine = call("cos", wave.angle), call("sin", wave.angle)
    if wave.fn == "cos":
        return made("cos", 1, cosine), made("sin", -wave.sign, sine)
    return made("sin", turned, cosine), made("cos", 1, sine)


def _wave(wave: Expr, over: str, lengths: Lengths) -> _Wave | None:
    """The wave, if its angle is whole turns along all of ``over``."""
    if not isinstance(wave, Call) or wave.fn not in ("cos", "sin"):
        return None
    length = lengths.of(over)
    parts = by_index(turns(wave.args[0], lengths), over)
    if parts is None or len(length) != 1:
        return None
    row = times(parts[0], length)
    if not row or not is_whole(row):
        return None
    angle = angle_expression(parts[1])
    if len(row) == 1:
        ((monomial, coefficient),) = row.items()
        match monomial:
            case ((Index(dim), 1),) if abs(coefficient) == 1 and lengths.are_equal(dim, over):
                return _Wave(wave.fn, dim, int(coefficient), None, angle)
    place = call("mod", integer_expression(row), integer_expression(length))
    if not place.axes:  # one frequency is a sum like others
        return None
    return _Wave(wave.fn, over, 1, place, angle)


def _apart(product: Expr, over: str, row: str) -> Iterator[Expr]:
    """Factors: whole ones, but where what is summed over is beside the axis of the result."""
    match product:
        case Call("mul", (a, b)) if {over, row} <= product.axes:
            yield from _apart(a, over, row)
            yield from _apart(b, over, row)
        case Call("div", (a, b)) if {over, row} <= product.axes:
            yield from _apart(a, over, row)
            yield call("div", 1.0, b)
        case _:
            yield product


def _signed(factors: list[Expr]) -> tuple[int, list[Expr]]:
    """Signs apart from what they are of."""
    sign, rest = 1, list[Expr]()
    for factor in factors:
        while isinstance(factor, Call) and factor.fn == "neg":
            sign, factor = -sign, factor.args[0]
        if factor in (Literal(-1.0), Literal(-1)):
            sign = -sign
        else:
            rest.append(factor)
    return sign, rest


def _along(factors: list[Expr], axis: str) -> tuple[list[Expr], list[Expr]]:
    """Factors with the axis, and those without."""
    return [f for f in factors if axis in f.axes], [f for f in factors if axis not in f.axes]


__all__ = [
    "FourierSum",
    "fourier_sums",
    "one_axis_after_another",
]
