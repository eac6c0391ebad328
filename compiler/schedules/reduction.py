"""Reductions over an axis that no tile holds: a loop over its blocks with a running result."""

from __future__ import annotations

from ...ir.expression import Expr, Kind, Reduce
from ...ir.tile import DType, Value
from ..analysis.mask_ranges import Conjunct, KeyRanges, key_ranges
from .builder import KIND_DTYPE
from .evaluation import Evaluator
from .runs import sweep


def _ranges(evaluator: Evaluator, where: Expr | None, axis: str) -> KeyRanges:
    """What ``where`` admits for the rows that it tells apart; all, if they are of two axes."""
    rows = [g.dim for g in evaluator.builder.grid if g.tiled]
    told = [dim for dim in rows if where is not None and dim in where.axes]
    if len(told) > 1 and where is not None:
        return KeyRanges(axis, told[0], (Conjunct((), (), (), (where,), exact=False),))
    block = (told or rows or [""])[0]
    return key_ranges(where, axis, block, evaluator.context.masks)


def reduce_in_loop(evaluator: Evaluator, expr: Reduce, looped: list[str], hint: str) -> Value:
    """``expr`` with its first long axis walked block by block; the others inside."""
    from .contraction import contract, factors_of, reduce_on_tile, sum_by_steps

    axis = looped[0]
    rest = tuple(d for d in expr.over if d != axis)
    builder = evaluator.builder
    logical = expr.op in ("any", "all")
    dtype = DType.INT32 if logical else KIND_DTYPE[max(expr.x.kind, Kind.INT)]
    if expr.op == "sum" and expr.x.kind is Kind.REAL and expr.where is None and not rest:
        stepped = sum_by_steps(evaluator, factors_of(expr.x), axis, hint)
        if stepped is not None:
            return stepped
    ranges = _ranges(evaluator, expr.where, axis)
    inner = Reduce(expr.op, expr.x, rest, expr.where) if rest else None
    axes = evaluator.tile_axes(expr.axes)
    start = builder.constant(evaluator.identity(expr.op, dtype), dtype, axes)

    def turn(carried: tuple[Value, ...], mask: object, bound: Value | None) -> tuple[Value, ...]:
        where = None if mask is None else expr.where
        if expr.op == "sum" and expr.x.kind is Kind.REAL and inner is None:
            factors = factors_of(expr.x)
            return (contract(evaluator, factors, (axis,), where, hint, carried[0]),)
        x = expr.x if inner is None else Reduce(inner.op, inner.x, inner.over, where)
        block = reduce_on_tile(evaluator, Reduce(expr.op, x, (axis,), where), "")
        merged = evaluator.merge(expr.op, carried[0], builder.cast(block, dtype), hint)
        return (merged,)

    name = hint or f"{expr.op}_{axis.lower()}"
    (result,) = sweep(evaluator, axis, ranges, expr.where, [(name, start)], turn)
    if not logical:
        return result
    zero = builder.constant(0, DType.INT32)
    return builder.elementwise("ne", result, zero, dtype=DType.BOOL, hint=hint)
