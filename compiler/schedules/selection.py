"""The value of a rank along a long axis: where the first few of an order end.

    rank(x, J) < k  -->  x > least or (x == least and j <= last)

``least`` is the k-th largest number of a row and ``last`` the place of the last of its equals that
is among the first k. Few are gone through one by one, many are found by the bits of the least.
"""

from __future__ import annotations

from math import inf

from ...ir.expression import Size
from ...ir.task import SelectionTask
from ...ir.tile import BufferArgument, DType, Program, Tile, Value
from ..tiles.builder import Builder
from ..tiles.context import Context
from ..tiles.evaluation import TileEvaluator
from ..tiles.evaluator import Evaluator
from ..tiles.grid import place_grid, store_result
from .defaults import LIGHT, pointwise_blocks
from .few_largest import few_largest
from .largest_by_bits import least_by_bits, turns_are_cheaper
from .row_passes import RowPasses


def selection(task: SelectionTask, context: Context) -> Program:
    """The tile program that fills the two buffers, cut along ``tiled``."""
    tiled = task.tiled
    context = context.with_blocks(pointwise_blocks((*tiled, task.over)))
    builder = Builder(task.name)
    evaluator = TileEvaluator(builder, context)
    dims = context.buffers[task.least].dims
    for buffer in (context.buffers[task.least], context.buffers[task.last]):
        builder.buffer(BufferArgument(buffer.name, buffer.dims, buffer.dtype, written=True))
    place_grid(evaluator, [d for d in dims if d not in tiled], None)
    for dim in tiled:
        place_grid(evaluator, [dim], dim)
    rows = evaluator.tile_axes(dims)
    least, last = few_largest(evaluator, task, rows) or _by_passes(evaluator, task, rows)
    store_result(evaluator, task.least, least)
    store_result(evaluator, task.last, last)
    return builder.finish(context.launch(LIGHT), task.about)


def _by_passes(
    evaluator: Evaluator, task: SelectionTask, rows: frozenset[str]
) -> tuple[Value, Value]:
    """The least that is kept and the last of its equals, however many are kept."""
    context = evaluator.context
    evaluator.builder.tiles[task.over] = Tile(task.over, context.blocks.get(task.over, 64))
    row = RowPasses(evaluator, task, rows)
    most = [evaluator.fixed_number(n) for n in (task.kept, Size(task.over))]
    known = min((n for n in most if n is not None), default=None)
    by_turns = turns_are_cheaper(known, context.target)
    least = _least_by_turns(row) if by_turns else least_by_bits(row, context.target)
    return least, row.last(least)


def _least_by_turns(row: RowPasses) -> Value:
    """From one number to the next smaller one, until as many are as large as are kept."""
    builder = row.builder
    turns = row.kept
    for dim in sorted(turns.axes):  # the rows of a tile take the turns of the longest
        turns = builder.reduce("max", turns, dim, "turns")
    start = [("least", row.number(inf))]
    with builder.loop("turn", row.whole(0), turns, 1, start) as loop:
        (so_far,) = loop.carried

        def body(x: Value, state: tuple[Value, ...]) -> tuple[Value, ...]:
            as_large = row.those("ge", x, so_far)
            smaller = row.evaluator.where(row.those("lt", x, so_far), x, row.number(-inf))
            best = builder.reduce("max", smaller, row.task.over)
            following = builder.elementwise("max", state[1], best, dtype=DType.FLOAT32)
            return row.counted(as_large, state[0]), following

        start = [("count", row.whole(0, row.rows)), ("following", row.number(-inf))]
        count, following = row.walk(start, body)
        enough = row.compared("ge", count, row.kept)
        loop.yields = (row.evaluator.where(enough, so_far, following),)
    return loop.results[0]


__all__ = ["selection"]
