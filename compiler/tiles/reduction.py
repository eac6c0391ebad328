"""Reductions over an axis that no tile holds: a loop over its blocks with a running result."""

from __future__ import annotations

from ...ir.expression import Call, Index, Kind, Reduce, Size
from ...ir.tile import Value
from .admitted import ranges_for_rows
from .contraction import (
    as_truth,
    contract,
    factors_of,
    reduce_on_tile,
    reduced_dtype,
    step_reduce,
    sum_by_steps,
)
from .evaluator import Evaluator
from .key_blocks import integer, sweep


def reduce_in_loop(evaluator: Evaluator, expr: Reduce, looped: list[str], hint: str) -> Value:
    """``expr`` with its long axis walked block by block; of several, the first one by one.

    Axes that a tile holds whole are reduced last, from one result for each of their positions.
    """
    whole = tuple(d for d in expr.over if d not in looped)
    if whole:
        long = Reduce(expr.op, expr.x, tuple(looped), expr.where)
        return evaluator.evaluate(Reduce(expr.op, long, whole), hint)
    if len(looped) > 1:
        return step_reduce(evaluator, expr, hint)
    (axis,) = looped
    if _is_real_sum(expr) and expr.where is None:
        stepped = sum_by_steps(evaluator, factors_of(expr.x), axis, hint)
        if stepped is not None:
            return stepped
    ranges = ranges_for_rows(evaluator, expr.where, axis)
    axes, dtype = evaluator.tile_axes(expr.axes), reduced_dtype(evaluator, expr)
    start = evaluator.builder.constant(evaluator.identity(expr.op, dtype), dtype, axes)

    def body(carried: tuple[Value, ...], mask: object, bound: Value | None) -> tuple[Value, ...]:
        where = None if mask is None else expr.where
        return (_joined(evaluator, Reduce(expr.op, expr.x, (axis,), where), carried[0], hint),)

    name = hint or f"{expr.op}_{axis.lower()}"
    (result,) = sweep(evaluator, axis, ranges, expr.where, [(name, start)], body)
    return as_truth(evaluator, expr, result, hint)


def reduce_members(evaluator: Evaluator, expr: Reduce, hint: str) -> Value | None:
    """A reduction over the heads of a group, which lie side by side, of the one group that a
    program has: its heads in turn, and no others. None where it is another reduction.
    """
    match expr:
        case Reduce(
            over=(head,),
            where=None,
            group=((group, Call("floordiv", (Index(of), Call("floordiv", sizes) as members))),),
        ) if of == head and sizes == (Size(head), Size(group)):
            pass
        case _:
            return None
    if (group, head) not in evaluator.context.heads or evaluator.context.length(head) is not None:
        return None
    at = evaluator.position(group)
    if at.axes:
        return None
    count = evaluator.integer(members)
    first = integer(evaluator, "mul", at, count, hint=f"{head.lower()}_first")
    end = integer(evaluator, "add", first, count, hint=f"{head.lower()}_end")
    return step_reduce(evaluator, Reduce(expr.op, expr.x, expr.over), hint, (first, end))


def _is_real_sum(expr: Reduce) -> bool:
    return expr.op == "sum" and expr.x.kind is Kind.REAL


def _joined(evaluator: Evaluator, block: Reduce, so_far: Value, hint: str) -> Value:
    """What came of the blocks so far, and of one more."""
    if _is_real_sum(block):
        return contract(evaluator, factors_of(block.x), block.over, block.where, hint, so_far)
    value = evaluator.builder.cast(reduce_on_tile(evaluator, block, ""), so_far.dtype)
    return evaluator.merge(block.op, so_far, value, hint)
