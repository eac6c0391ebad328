"""The largest numbers of rows: where they end along a long axis, or which they are.

    rank(x, J) < k  -->  x > least or (x == least and j <= last)

``least`` is the k-th largest number of a row and ``last`` the place of the last of its equals that
is among the first k. Few are gone through one by one, many are found by the bits of the least.
Where which they are is all that is asked for, the same kernel says so of each position.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

from ...ir.expression import Reduce, Size
from ...ir.rewriting import walk
from ...ir.selection_tasks import ChoiceTask, EndsTask, OwnNumbers, SelectionTask
from ...ir.tile import BufferArgument, DType, Program, Tile, Value
from ..tiles.builder import Builder
from ..tiles.context import Context
from ..tiles.evaluation import TileEvaluator
from ..tiles.evaluator import Evaluator
from ..tiles.grid import place_grid, store_result
from ..tiles.key_blocks import integer
from .defaults import LIGHT, pointwise_blocks
from .few_largest import few_largest
from .largest_by_bits import Count, turns_are_cheaper
from .list_of_row import ListOfRow
from .mass import Mass
from .row_passes import RowPasses, kept_number

_ROWS = 16  # that a program has at hand: of more, long ones leave the second cache


def selection(task: EndsTask, context: Context) -> Program:
    """The tile program that fills the two buffers, cut along ``tiled``."""
    evaluator = _start(task, context, pointwise_blocks((*task.tiled, task.over)))
    dims = context.buffers[task.least].dims
    place_grid(evaluator, [d for d in dims if d not in task.tiled], None)
    for dim in task.tiled:
        place_grid(evaluator, [dim], dim)
    rows = evaluator.tile_axes(dims)
    few = few_largest(evaluator, task, rows)
    if few is not None:
        least, room = few.least()
        last = few.last(least, room)
    else:
        row = _passes(evaluator, task, rows)
        least, room = _least(row)
        last = row.last(least, room)
    store_result(evaluator, task.least, least)
    store_result(evaluator, task.last, last)
    return evaluator.builder.finish(context.launch(LIGHT), task.about)


def choice(task: ChoiceTask, context: Context) -> Program:
    """The tile program that says of each position whether it is chosen."""
    blocks = {**dict.fromkeys(task.tiled, _ROWS), task.over: _block(task, context)}
    evaluator = _start(task, context, blocks)
    dims = task.rows
    place_grid(evaluator, [d for d in dims if d not in task.tiled], None)
    with _blocks_of_rows(evaluator, task):
        rows = evaluator.tile_axes(dims)
        row = _passes(evaluator, task, rows)
        row.make()
        if task.chosen is not None:
            row.choose(task.chosen, task.always, *_ends(row, task))
        if task.listed is not None:
            ListOfRow(row, task).store(task.listed)
    return evaluator.builder.finish(context.launch(LIGHT), task.about)


def _block(task: ChoiceTask, context: Context) -> int:
    """How many numbers of a row are looked at together: threads keep what they find of each, and
    products of up to 64 channels leave them room for twice as many."""
    sums = [n for n in walk(task.x) if isinstance(n, Reduce)] if task.own is not None else []
    sizes = [context.sizes.get(dim, 65) for node in sums for dim in node.over]
    return 64 if sizes and max(sizes) <= 64 else 32


def _start(task: EndsTask | ChoiceTask, context: Context, blocks: dict[str, int]) -> Evaluator:
    builder = Builder(task.name)
    for name in task.computes:
        buffer = context.buffers[name]
        builder.buffer(BufferArgument(name, buffer.dims, buffer.dtype, written=True))
    return TileEvaluator(builder, context.with_blocks(blocks))


@contextmanager
def _blocks_of_rows(evaluator: Evaluator, task: ChoiceTask) -> Iterator[None]:
    """Within: the block of rows of the program, or one of its share after another."""
    if task.own is None:
        for dim in task.tiled:
            place_grid(evaluator, [dim], dim)
        yield
        return
    (dim,) = task.tiled
    place_grid(evaluator, [task.own.shares], None)
    with _block_of_share(evaluator, task.own, dim):
        yield


@contextmanager
def _block_of_share(evaluator: Evaluator, own: OwnNumbers, dim: str) -> Iterator[None]:
    """Within: the blocks of rows are dealt out in turn, so that shares are of like work."""
    builder, name = evaluator.builder, dim.lower()
    builder.in_turn.add(dim)
    builder.shares[own.shares] = dim
    builder.tiles[dim] = Tile(dim, evaluator.context.blocks[dim])
    zero, one = (builder.constant(n, DType.INT32) for n in (0, 1))
    size, block = evaluator.size(dim), builder.block(dim)
    first = integer(evaluator, "mul", evaluator.position(own.shares), block, hint=f"{name}_first")
    stride = integer(evaluator, "mul", evaluator.size(own.shares), block, hint=f"{name}_stride")
    less = integer(evaluator, "sub", stride, one)
    rest = integer(evaluator, "add", integer(evaluator, "sub", size, first), less)
    turns = integer(evaluator, "floordiv", rest, stride, hint=f"{name}_turns")
    with builder.loop(f"{name}_turn", zero, turns, 1, []) as loop:
        ahead = integer(evaluator, "mul", loop.variable, stride)
        start = integer(evaluator, "add", first, ahead, hint=f"{name}_start")
        position = builder.range(dim, start, name)
        exists = builder.elementwise("lt", position, size, dtype=DType.BOOL)
        builder.place(dim, position, exists)
        yield
        loop.yields = ()


def _passes(evaluator: Evaluator, task: SelectionTask, rows: frozenset[str]) -> RowPasses:
    evaluator.builder.tiles[task.over] = Tile(task.over, evaluator.context.blocks[task.over])
    return RowPasses(evaluator, task, rows)


def _ends(row: RowPasses, task: ChoiceTask) -> tuple[Value, Value]:
    """The least that is kept of each row and for how many of its equals there is room."""
    match task.rule:
        case "above":
            bound = row.evaluator.spread(row.evaluator.real(task.kept), row.rows)
            return bound, row.whole(0, row.rows)
        case "mass":
            return Mass(row, task.kept).ends()
    few = few_largest(row.evaluator, task, row.rows)
    return _least(row) if few is None else few.least()


def _least(row: RowPasses) -> tuple[Value, Value]:
    """The same where so many are kept."""
    evaluator, task = row.evaluator, row.task
    target = evaluator.context.target
    most = [evaluator.fixed_number(n) for n in (task.kept, Size(task.over))]
    known = min((n for n in most if n is not None), default=None)
    if not turns_are_cheaper(known, target):
        return Count(row).ends()
    least, larger = _least_by_turns(row)
    return least, row.integer("sub", kept_number(row), larger, hint="room")


def _least_by_turns(row: RowPasses) -> tuple[Value, Value]:
    """From one number to the next smaller one, until as many are as large as are kept; the least,
    and how many are larger."""
    builder = row.builder
    turns = kept = kept_number(row)
    for dim in sorted(turns.axes):  # the rows of a tile take the turns of the longest
        turns = builder.reduce("max", turns, dim, "turns")
    lowest, zero = row.number(-inf), row.whole(0, row.rows)
    start = [("least", row.number(inf)), ("larger", zero)]
    with builder.loop("turn", row.whole(0), turns, 1, start) as loop:
        so_far, larger = loop.carried

        def found(x: Value) -> tuple[Value, ...]:
            smaller = row.evaluator.where(row.those("lt", x, so_far), x, lowest)
            return row.those("ge", x, so_far), smaller

        starts = [("count", "sum", zero), ("following", "max", lowest)]
        count, following = row.gather(starts, found)
        enough = row.compared("ge", count, kept)
        stays = builder.elementwise(
            "or", enough, row.compared("eq", so_far, lowest), dtype=DType.BOOL
        )
        loop.yields = (
            row.evaluator.where(stays, so_far, following),
            row.evaluator.where(stays, larger, count),
        )
    return loop.results[0], loop.results[1]


__all__ = ["choice", "selection"]
