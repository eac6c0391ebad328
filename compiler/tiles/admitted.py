"""Which positions of an axis count for the rows that a program takes."""

from __future__ import annotations

from dataclasses import replace

from ...ir.expression import Call, Expr, Literal, Read, Size, call
from ...ir.key_ranges import KeyRanges
from ...ir.tile import DType, Value
from ..analysis.conditions import all_of, conditions_of
from ..analysis.masks.ranges import key_ranges
from .evaluator import Evaluator
from .key_blocks import find_range


def ranges_for_rows(evaluator: Evaluator, where: Expr | None, axis: str) -> KeyRanges:
    """What ``where`` admits for the rows that a program takes.

    A bound is one number for a block of rows: a condition that tells other positions of the tile
    apart gives none, and no block is free of it.
    """
    conditions = conditions_of(where)
    builder = evaluator.builder
    rows = [*(g.dim for g in builder.grid if g.tiled), *sorted(builder.in_turn)]
    told = {c: evaluator.tile_axes(c.axes - {axis}) for c in conditions}
    block = next((d for d in rows if any(told[c] == {d} for c in conditions)), (rows or [""])[0])
    bounding = [c for c in conditions if told[c] <= {block}]
    ranges = key_ranges(all_of(bounding), axis, block, evaluator.context.masks)
    if len(bounding) == len(conditions):
        return ranges
    partial = tuple(replace(conjunct, exact=False) for conjunct in ranges.disjuncts)
    return replace(ranges, disjuncts=partial)


def steps_for_rows(evaluator: Evaluator, factors: list[Expr], axis: str) -> tuple[Value, Value]:
    """The first position of ``axis`` at which a product may be other than 0, and the end of them.

    ``h[l] * x[T=t - l]`` is 0 where l > t: a factor read outside its table is 0.
    """
    conditions = [c for factor in factors for c in _not_zero(factor) if axis in c.axes]
    size = evaluator.size(axis)
    if not conditions:
        return evaluator.builder.constant(0, DType.INT32), size
    ranges = ranges_for_rows(evaluator, all_of(conditions), axis)
    if len(ranges.disjuncts) != 1:
        return evaluator.builder.constant(0, DType.INT32), size
    return find_range(evaluator, ranges, size)


def _not_zero(factor: Expr) -> list[Expr]:
    """Conditions without which a factor is 0."""
    match factor:
        case Read(_, at, fill) if fill == 0:
            low = [call("ge", index, 0) for _, index in at]
            return [*low, *(call("lt", index, Size(dim)) for dim, index in at)]
        case Call("where", (condition, value, Literal(number))) if number == 0:
            return [*conditions_of(condition), *_not_zero(value)]
    return []


__all__ = ["ranges_for_rows", "steps_for_rows"]
