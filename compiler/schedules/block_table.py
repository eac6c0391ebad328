"""Which key blocks a block of queries visits, where the mask gives no bounds: a generated table.

One kernel walks the key blocks that bounds leave over, evaluates the mask and lists the starts of
those with anything visible; the attention then walks the list. Beside the attention itself this
is cheap: it reads no queries and no keys, and heads that share a mask share a table.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.expression import Expr
from ...ir.promises import CommonBlocks
from ...ir.task import BlockTable, BlockTableTask
from ...ir.tile import BufferArgument, DType, Program, Tile, Value
from ..analysis.conditions import all_of
from ..tiles.builder import Builder
from ..tiles.context import Context
from ..tiles.evaluation import TileEvaluator
from ..tiles.evaluator import Evaluator
from ..tiles.grid import place_grid
from ..tiles.key_blocks import LoopBody, Share, by_block, integer, sweep
from .defaults import LIGHT


def block_table(task: BlockTableTask, context: Context) -> Program:
    """The tile program that fills a block table.

    Its blocks are those of the attention that reads the table: a promise, kept when all kernels of
    the plan are there.
    """
    table = task.table
    builder = Builder(task.name)
    evaluator = TileEvaluator(builder, context)
    place_grid(evaluator, [*table.dims, table.block], table.block)
    for buffer in (table.starts, table.counts):
        given = context.buffers[buffer]
        builder.buffer(BufferArgument(buffer, given.dims, given.dtype, written=True))
    places = _places(evaluator, table)
    zero = builder.constant(0, DType.INT32)

    def body(
        state: tuple[Value, ...], applied: Expr | None, exists: Value | None
    ) -> tuple[Value, ...]:
        (count,) = state
        some = _any_visible(evaluator, table, applied, exists)
        first = builder.begin(table.over)
        builder.store(table.starts, [*places, (table.key_blocks, count)], first, some)
        more = builder.cast(some, DType.INT32)
        return (integer(evaluator, "add", count, more, hint="count"),)

    rest = all_of(task.ranges.rest)
    start = [("count", zero)]
    (count,) = sweep(evaluator, table.over, task.ranges, task.mask, start, body, rest=rest)
    builder.store(table.counts, places, count, None)
    return builder.finish(context.launch(LIGHT), task.about)


def _places(evaluator: Evaluator, table: BlockTable) -> list[tuple[str, Value]]:
    """Index values for the dims of a table before the key blocks."""
    builder = evaluator.builder
    builder.promises |= {
        CommonBlocks(table.block, table.row_blocks),
        CommonBlocks(table.over, table.key_blocks),
    }
    start = next(g.position for g in builder.grid if g.dim == table.block)
    number = integer(evaluator, "floordiv", start, builder.block(table.block), hint="i_block")
    fixed = [(dim, evaluator.position(dim)) for dim in table.dims]
    return [*fixed, (table.row_blocks, number)]


def _any_visible(
    evaluator: Evaluator, table: BlockTable, mask: Expr | None, exists: Value | None
) -> Value:
    """Whether the mask admits any pair of the block."""
    builder = evaluator.builder
    visible = evaluator.both(exists, builder.bound(table.block))
    if mask is not None:
        visible = evaluator.both(evaluator.condition(mask, "visible"), visible)
    zero = builder.constant(0, DType.INT32)
    if visible is None:
        return builder.constant(True, DType.BOOL)
    number = builder.cast(visible, DType.INT32)
    for dim in sorted(visible.axes):
        number = builder.reduce("max", number, dim, "some")
    return builder.elementwise("gt", number, zero, dtype=DType.BOOL, hint="some")


def sweep_listed(
    evaluator: Evaluator,
    table: BlockTable,
    mask: Expr | None,
    carried: Sequence[tuple[str, Value]],
    body: LoopBody,
    share: Share | None = None,
) -> tuple[Value, ...]:
    """Visit the blocks that a table lists (this program's share), the mask applied in each."""
    builder, axis = evaluator.builder, table.over
    builder.tiles.setdefault(axis, Tile(axis, evaluator.context.blocks.get(axis, 64)))
    for name in (table.starts, table.counts):
        given = evaluator.context.buffers[name]
        builder.buffer(BufferArgument(name, given.dims, given.dtype, nonnegative=True))
    places = _places(evaluator, table)
    count = builder.load(table.counts, places, hint="count")
    zero = builder.constant(0, DType.INT32)
    name = axis.lower()
    first, stop = zero, count
    if share is not None:
        first, stop = share(zero, count, builder.constant(1, DType.INT32))
    with builder.loop(f"{name}_turn", first, stop, 1, carried) as loop:
        start = builder.load(
            table.starts, [*places, (table.key_blocks, loop.variable)], hint=f"{name}_start"
        )
        position = builder.range(axis, start, name)
        size = evaluator.size(axis)
        bound = builder.elementwise("lt", position, size, dtype=DType.BOOL, hint=f"{name}_exists")
        builder.place(axis, position, bound)
        builder.comment(f"a listed block of {axis}: the mask applies")
        applied = None if mask is None else by_block(evaluator, axis, mask)
        loop.yields = body(loop.carried, applied, bound)
    return loop.results
