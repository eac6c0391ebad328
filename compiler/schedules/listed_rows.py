"""An attention whose rows each choose the stretches of keys that they see: by stretch, not by row.

    rows i0 ... i1, each with a mask of stretches
    -->  a stretch and the rows that chose it, stretch after stretch

The rows that chose a stretch are read together, as a tile without holes, so that both products are
of matrices and none is of a pair that is not seen. What a row carries (maximum, sum, outputs) lies
in memory in between. A program takes a share of the rows that the second cache has room for, and
all stretches in their order: so sums have one order whatever runs beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...ir.normaliser import Rescaled
from ...ir.task import ListedRowsTask, RowLists, RowListsTask
from ...ir.tile import BufferArgument, DType, Program, Tile, Value
from ..tiles.builder import Builder
from ..tiles.context import Context, Launch
from ..tiles.evaluation import TileEvaluator
from ..tiles.evaluator import Evaluator
from ..tiles.grid import place_grid, store_result
from ..tiles.key_blocks import integer
from ..tiles.scope import Loop
from .attention import rescaled_body, start_rescaled, store_rescaled
from .defaults import LIGHT, attention_configurations

Carried = Sequence[tuple[str, Value]]


def row_lists(task: RowListsTask, context: Context) -> Program:
    """The tile program that fills lists of rows."""
    lists = task.lists
    builder = Builder(task.name)
    evaluator = TileEvaluator(builder, context)
    place_grid(evaluator, [*lists.dims, lists.stretches, lists.shares], None)
    _declare(evaluator, (lists.rows, lists.counts), written=True)
    builder.tiles[lists.block] = Tile(lists.block, 64)
    start = [("count", builder.constant(0, DType.INT32))]
    with _rows_of_share(evaluator, lists, start) as loop:
        (count,) = loop.carried
        chosen = evaluator.condition(task.chosen, "chosen")
        chosen = evaluator.both(chosen, builder.bound(lists.block)) or chosen
        flag = builder.cast(chosen, DType.INT32)
        number = builder.scan(flag, lists.block)
        place = integer(evaluator, "add", _first_of_share(evaluator, lists), count)
        place = integer(evaluator, "sub", place, builder.constant(1, DType.INT32))
        place = integer(evaluator, "add", place, number)
        here = [*_stretch(evaluator, lists), (lists.block, place)]
        builder.store(lists.rows, here, builder.position(lists.block), chosen)
        added = builder.reduce("sum", flag, lists.block)
        loop.yields = (integer(evaluator, "add", count, added),)
    builder.store(lists.counts, _share(evaluator, lists), loop.results[0], None)
    return builder.finish(context.launch(LIGHT), task.about)


def listed_rows(task: ListedRowsTask, context: Context) -> Program:
    """The tile program of an attention over listed rows."""
    configuration = next(attention_configurations(context, task.block, task.over))
    return _program(task, context.with_blocks(configuration.blocks), configuration.launch)


def _program(task: ListedRowsTask, context: Context, launch: Launch) -> Program:
    lists, form = task.lists, task.form
    assert lists is not None
    assert isinstance(form, Rescaled)
    builder = Builder(task.name)
    evaluator = TileEvaluator(builder, context)
    others = [d for d in (*task.queries, *task.values) if d != task.block]
    builder.shares[lists.shares] = task.block
    place_grid(evaluator, [*others, lists.shares], None)
    _declare(evaluator, [name for name in task.writes if name not in task.kept], written=True)
    _declare(evaluator, task.kept, written=True, kept=True)
    _declare(evaluator, (lists.rows, lists.counts), nonnegative=True)
    for dim in (task.block, task.over):
        builder.tiles[dim] = Tile(dim, context.blocks.get(dim, 64))
    with _rows_of_share(evaluator, lists):
        rows = evaluator.tile_axes(task.queries)
        start = start_rescaled(evaluator, task, form, rows)
        _keep(evaluator, task, [value for _, value in start])
    with _listed(evaluator, task, lists):
        carried = _kept(evaluator, task, [name for name, _ in start])
        _keep(evaluator, task, _stretch_of_keys(evaluator, task, form, carried))
    with _rows_of_share(evaluator, lists):
        builder.comment("normalise and store")
        kept = _kept(evaluator, task, [name for name, _ in start])
        store_rescaled(evaluator, task, form, [value for _, value in kept])
    return builder.finish(context.launch(launch), task.about)


def _declare(
    evaluator: Evaluator,
    names: Sequence[str],
    written: bool = False,
    nonnegative: bool = False,
    kept: bool = False,
) -> None:
    for name in names:
        buffer = evaluator.context.buffers[name]
        evaluator.builder.buffer(
            BufferArgument(name, buffer.dims, buffer.dtype, written, nonnegative, kept)
        )


def _first_of_share(evaluator: Evaluator, lists: RowLists) -> Value:
    size = evaluator.builder.constant(lists.size, DType.INT32)
    share = evaluator.position(lists.shares)
    return integer(evaluator, "mul", share, size, hint=f"{lists.block.lower()}_first")


def _stretch(evaluator: Evaluator, lists: RowLists) -> list[tuple[str, Value]]:
    """Where a stretch's lists are."""
    dims = (*lists.dims, lists.stretches)
    return [(dim, evaluator.position(dim)) for dim in dims]


def _share(evaluator: Evaluator, lists: RowLists) -> list[tuple[str, Value]]:
    """Where the length of a share's list is."""
    return [*_stretch(evaluator, lists), (lists.shares, evaluator.position(lists.shares))]


@contextmanager
def _rows_of_share(evaluator: Evaluator, lists: RowLists, carried: Carried = ()) -> Iterator[Loop]:
    """Within: a block of the share's rows, one after another."""
    first = _first_of_share(evaluator, lists)
    with _blocks(evaluator, lists.block, first, lists.size, carried) as (loop, _):
        evaluator.builder.comment(f"a block of {lists.block}")
        loop.yields = ()
        yield loop


@contextmanager
def _blocks(
    evaluator: Evaluator, dim: str, first: Value, length: int, carried: Carried
) -> Iterator[tuple[Loop, Value]]:
    """Within: a block of ``length`` positions of a dim from ``first`` on, and which of it exist."""
    builder, name = evaluator.builder, dim.lower()
    end = integer(evaluator, "add", first, builder.constant(length, DType.INT32))
    end = integer(evaluator, "min", end, evaluator.size(dim), hint=f"{name}_end")
    with builder.loop(f"{name}_start", first, end, builder.tiles[dim].symbol, carried) as loop:
        position = builder.range(dim, loop.variable, name)
        exists = builder.elementwise("lt", position, end, dtype=DType.BOOL, hint=f"{name}_exists")
        builder.place(dim, position, exists)
        yield loop, exists


@contextmanager
def _listed(evaluator: Evaluator, task: ListedRowsTask, lists: RowLists) -> Iterator[None]:
    """Within: a stretch, and a block of the rows that are listed for it."""
    builder, dim, stretches = evaluator.builder, task.block, lists.stretches
    name, zero = dim.lower(), builder.constant(0, DType.INT32)
    number = evaluator.size(stretches)
    with builder.loop(f"{stretches.lower()}_turn", zero, number, 1, []) as turns:
        builder.place(stretches, turns.variable)
        place = _stretch(evaluator, lists)
        count = builder.load(lists.counts, _share(evaluator, lists), hint="count")
        symbol = builder.tiles[dim].symbol
        with builder.loop(f"{name}_listed", zero, count, symbol, []) as loop:
            slot = builder.range(dim, loop.variable, f"{name}_slot")
            exists = builder.elementwise("lt", slot, count, dtype=DType.BOOL)
            at = integer(evaluator, "add", slot, _first_of_share(evaluator, lists))
            row = builder.load(lists.rows, [*place, (dim, at)], exists, 0, name)
            builder.place(dim, row, exists)
            builder.comment(f"rows that see something of a stretch of {task.over}")
            yield
            loop.yields = ()
        turns.yields = ()


def _stretch_of_keys(
    evaluator: Evaluator, task: ListedRowsTask, form: Rescaled, carried: Carried
) -> tuple[Value, ...]:
    """What the rows at hand carry once they have seen the stretch at hand."""
    lists = task.lists
    assert lists is not None
    body = rescaled_body(evaluator, task, form, evaluator.tile_axes(task.queries))
    length = evaluator.builder.constant(lists.length, DType.INT32)
    first = integer(evaluator, "mul", evaluator.position(lists.stretches), length)
    with _blocks(evaluator, task.over, first, lists.length, carried) as (loop, exists):
        loop.yields = body(loop.carried, task.mask, exists)
    return loop.results


def _keep(evaluator: Evaluator, task: ListedRowsTask, values: Sequence[Value]) -> None:
    for name, value in zip(task.kept, values, strict=True):
        store_result(evaluator, name, value)


def _kept(
    evaluator: Evaluator, task: ListedRowsTask, names: Sequence[str]
) -> list[tuple[str, Value]]:
    """What the rows at hand have carried so far, by name."""
    found = []
    for buffer, name in zip(task.kept, names, strict=True):
        dims = evaluator.context.buffers[buffer].dims
        place = [(dim, evaluator.position(dim)) for dim in dims]
        mask = evaluator.bounds_of(dims)
        found.append((name, evaluator.builder.load(buffer, place, mask, 0.0, name)))
    return found


__all__ = ["listed_rows", "row_lists"]
