"""Sums and products of values on the tile, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce as fold

from ...ir.expression import Expr
from ...ir.tile import DType, Value
from .evaluator import Evaluator


def seen(evaluator: Evaluator, values: list[Value], mask: Expr | None, hint: str = "") -> Value:
    """The product, 0 where the factor ``mask`` is."""
    value = product(evaluator, values, hint)
    if mask is None or len(values) == 1:
        return value
    builder = evaluator.builder
    zero = builder.constant(0.0, DType.FLOAT32)
    visible = builder.elementwise("ne", evaluator.real(mask), zero, dtype=DType.BOOL, hint="seen")
    return evaluator.where(visible, value, zero, hint)


def product(evaluator: Evaluator, values: list[Value], hint: str = "") -> Value:
    """The product of one value or more."""
    builder = evaluator.builder
    return fold(
        lambda a, b: builder.elementwise("mul", a, b, dtype=DType.FLOAT32, hint=hint), values
    )


def accumulate(evaluator: Evaluator, values: Sequence[Value | None], hint: str = "") -> Value:
    """The sum of the values that are there."""
    builder = evaluator.builder
    present = [v for v in values if v is not None]
    return fold(
        lambda a, b: builder.elementwise("add", a, b, dtype=DType.FLOAT32, hint=hint), present
    )


def count(evaluator: Evaluator, over: tuple[str, ...]) -> Value:
    """How many positions ``over`` has on the tile, as a real number."""
    builder = evaluator.builder
    one: Value = builder.constant(1.0, DType.FLOAT32, frozenset(over))
    for dim in over:
        one = evaluator.masked(one, dim, 0.0)
    for dim in over:
        one = builder.reduce("sum", one, dim)
    return one
