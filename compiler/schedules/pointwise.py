"""The schedule of everything that is no attention: a result, tile by tile, and those beside it.

Each program instance computes a tile of the result; reductions inside run over what a tile holds,
or as loops. A running sum along a long axis is a loop that stores as it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...ir.expression import Cumsum, Reduce
from ...ir.knob import Knob
from ...ir.rewriting import walk
from ...ir.targets import Target
from ...ir.task import PointwiseTask, RunningSumTask
from ...ir.tile import BufferArgument, DType, Program, Tile, Value
from ..passes.narrow_tiles import narrow_tiles
from ..tiles.builder import Builder
from ..tiles.compensated import coarse_and_rest, two_sum
from ..tiles.context import Context
from ..tiles.evaluation import TileEvaluator
from ..tiles.evaluator import Evaluator
from ..tiles.grid import place_grid, store_result
from ..tiles.key_blocks import integer
from .defaults import LIGHT, SPREAD, pointwise_choices
from .estimates import fits_map
from .space import Space

SPACE = Space(
    Knob("block_rows", (16, 32, 64, 128, 256), 64, "a tile of the result has to stay in registers"),
    Knob(
        "block_keys", (16, 32, 64, 128), 32, "what is summed, by blocks: few loops, few registers"
    ),
    tuned=False,
)
# Columns of a running sum that a program takes: it holds several tiles of them, with their rests.
_COLUMNS = 32


def pointwise(task: PointwiseTask, context: Context) -> Program:
    """The tile program that stores a value, at the largest blocks that fit the smallest GPU."""
    nodes = (node for value in task.expressions for node in walk(value))
    looped = tuple(d for n in nodes if isinstance(n, Reduce) for d in n.over)
    made: Program | None = None
    for blocks in pointwise_choices(task.tiled, looped):
        columns = {d: max(16, blocks[d]) for d in task.tiled if d in context.sizes}
        made = tile_by_tile(task, context.with_blocks({**blocks, **columns}))
        if isinstance(context.target, Target):
            made = narrow_tiles(made)
        if fits_map(made, context.target):
            return made
    assert made is not None
    return replace(made, launch=context.launch(SPREAD))


def tile_by_tile(task: PointwiseTask, context: Context) -> Program:
    """The tile program that stores its values, with the context's blocks."""
    tiled = task.tiled
    builder = Builder(task.name)
    evaluator = TileEvaluator(builder, context)
    for result in task.writes:
        buffer = context.buffers[result]
        builder.buffer(BufferArgument(result, buffer.dims, buffer.dtype, written=True))
    dims = context.buffers[task.result].dims
    place_grid(evaluator, [d for d in dims if d not in tiled], None)
    for dim in tiled:
        place_grid(evaluator, [dim], dim)
    for result, value in ((task.result, task.value), *task.beside):
        store_result(evaluator, result, evaluator.evaluate(value, result))
    return builder.finish(context.launch(LIGHT), task.about)


def running_sum(task: RunningSumTask, context: Context) -> Program:
    """The tile program of a running sum along a long axis, with the sum so far carried.

    A real sum is carried with what its roundings lost: it may be large beside what is made of it
    (an angle is of use by its remainder), and row by row the losses would add up.
    """
    result, value = task.result, task.sum
    context = context.with_blocks({value.over: 64, **dict.fromkeys(task.tiled, _COLUMNS)})
    builder = Builder(task.name)
    evaluator = TileEvaluator(builder, context)
    buffer, axis = context.buffers[result], value.over
    builder.buffer(BufferArgument(result, buffer.dims, buffer.dtype, written=True))
    place_grid(evaluator, [d for d in buffer.dims if d != axis and d not in task.tiled], None)
    for dim in task.tiled:
        place_grid(evaluator, [dim], dim)
    builder.tiles[axis] = Tile(axis, context.blocks.get(axis, 64))
    dtype = evaluator.dtype_of(value)
    size, block = evaluator.size(axis), builder.block(axis)
    zero = builder.constant(0, DType.INT32)
    rows = evaluator.tile_axes(d for d in buffer.dims if d != axis)
    nothing = builder.constant(0.0 if dtype.is_float else 0, dtype, rows)
    start = nothing
    if task.start is not None:
        start = evaluator.spread(builder.cast(evaluator.evaluate(task.start), dtype), rows)
    carried = [("so_far", start), ("lost", nothing)][: 2 if dtype.is_float else 1]
    with builder.loop(f"{axis.lower()}_start", zero, size, block.name, carried) as loop:
        begin = loop.variable
        if value.reverse:
            begin = _from_the_end(evaluator, begin, axis)
        position = builder.range(axis, begin, axis.lower())
        bound = builder.elementwise("lt", position, size, dtype=DType.BOOL)
        builder.place(axis, position, bound)
        x = evaluator.masked(builder.cast(evaluator.evaluate(value.x), dtype), axis, 0)
        if dtype.is_float:
            loop.yields, stored = _compensated(builder, value, x, loop.carried, result)
        else:
            (so_far,) = loop.carried
            running = _scan(builder, value, x)
            stored = builder.elementwise("add", so_far, running, dtype=dtype, hint=result)
            added = builder.reduce("sum", x, axis)
            loop.yields = (builder.elementwise("add", so_far, added, dtype=dtype),)
        store_result(evaluator, result, stored)
    return builder.finish(context.launch(LIGHT), task.about)


def _compensated(
    builder: Builder, value: Cumsum, x: Value, carried: Sequence[Value], result: str
) -> tuple[tuple[Value, Value], Value]:
    """What is carried on, the sum and what it lost, after a block; and the block's results."""

    def add(a: Value, b: Value, hint: str = "") -> Value:
        return builder.elementwise("add", a, b, dtype=x.dtype, hint=hint)

    so_far, lost = carried
    coarse, rest = coarse_and_rest(builder, x, value.over)
    total, rounded = two_sum(builder, so_far, _scan(builder, value, coarse))
    small = add(rounded, add(lost, _scan(builder, value, rest)))
    stored = add(total, small, result)
    total, rounded = two_sum(builder, so_far, builder.reduce("sum", coarse, value.over))
    small = add(rounded, add(lost, builder.reduce("sum", rest, value.over)))
    return (total, small), stored


def _scan(builder: Builder, value: Cumsum, x: Value) -> Value:
    """The running sums of a block."""
    running = builder.scan(x, value.over, value.reverse)
    if not value.exclusive:
        return running
    return builder.elementwise("sub", running, x, dtype=x.dtype)


def _from_the_end(evaluator: Evaluator, begin: Value, axis: str) -> Value:
    """The start of the block as far from the last one as ``begin`` is from the first."""
    builder = evaluator.builder
    block = builder.block(axis)
    one = builder.constant(1, DType.INT32)
    last = integer(evaluator, "sub", evaluator.size(axis), one)
    blocks = integer(evaluator, "floordiv", last, block)
    last_start = integer(evaluator, "mul", blocks, block)
    return integer(evaluator, "sub", last_start, begin, hint=f"{axis.lower()}_begin")
