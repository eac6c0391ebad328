"""Integers on a tile: in 32 bits where their range is shown to fit, else in 64."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.expression import Expr, Kind
from ...ir.tile import DType, Value
from ..analysis.integer_range import IntegerRange
from .builder import KIND_DTYPE, Builder
from .evaluator import Evaluator, clipped


def integral(
    evaluator: Evaluator, fn: str, args: Sequence[Expr], kind: Kind, dtype: DType, hint: str
) -> Value:
    """A function of integers, or a comparison, in the widest type of what goes in or out."""
    made = [evaluator.evaluate(a) for a in args]
    if dtype is DType.BOOL and kind is Kind.INT:
        made = _cut_to_compare(evaluator, args, made)
    wide = DType.INT64 in (dtype, *(v.dtype for v in made)) and kind is Kind.INT
    inner = DType.INT64 if wide else KIND_DTYPE[kind]
    values = [evaluator.builder.cast(v, inner) for v in made]
    if dtype is DType.BOOL:
        return evaluator.builder.elementwise(fn, *values, dtype=dtype, hint=hint)
    value = evaluator.builder.elementwise(fn, *values, dtype=inner, hint=hint)
    return evaluator.builder.cast(value, dtype)


def _cut_to_compare(evaluator: Evaluator, args: Sequence[Expr], values: list[Value]) -> list[Value]:
    """A wide number that narrow ones of more axes are compared with is cut to just beyond them.

    So the tile is compared in 32 bits, and what each comparison says stays the same.
    """
    made = list(values)
    for one, other in ((0, 1), (1, 0)):
        near = evaluator.context.ranges.of(args[other])
        ends = IntegerRange(near.low - 1, near.high + 1)
        if not ends.fits(32):
            continue
        if values[one].dtype is DType.INT64 and values[one].axes < values[other].axes:
            made[one] = clipped(evaluator.builder, values[one], ends.low, ends.high)
    return made


def whole_power(evaluator: Evaluator, expr: Expr) -> int | None:
    """The exponent, where it is a small natural number at compile time."""
    number = evaluator.fixed_number(expr)
    whole = number is not None and float(number).is_integer() and 1 <= number <= 64
    return int(number) if whole and number is not None else None


def powered(builder: Builder, base: Value, power: int, hint: str) -> Value:
    """base ** power by squaring."""
    result: Value | None = None
    square = base
    while power:
        if power % 2:
            result = square if result is None else _times(builder, result, square, hint)
        power //= 2
        if power:
            square = _times(builder, square, square, "square")
    assert result is not None
    return result


def _times(builder: Builder, a: Value, b: Value, hint: str) -> Value:
    return builder.elementwise("mul", a, b, dtype=a.dtype, hint=hint)
