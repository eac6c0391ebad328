"""An attention whose rows each choose the stretches of keys that they see: by stretch, not by row.

    rows i0 ... i1, each with a mask of stretches
    -->  a stretch and the rows that chose it, stretch after stretch

What a row carries (maximum, sum, outputs) lies in memory in between. A program takes a share of the
rows that the second cache has room for, and all stretches in their order: so sums have one order
whatever runs beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from ...ir.key_ranges import Row
from ...ir.task import ListedRowsTask, Lists
from ...ir.tile import DType, Program, Tile, Value
from ..analysis.conditions import all_of
from ..tiles.builder import Builder
from ..tiles.context import Context, Launch
from ..tiles.evaluation import TileEvaluator
from ..tiles.evaluator import Evaluator
from ..tiles.grid import place_grid, store_result
from ..tiles.key_blocks import Rows, find_part, integer
from ..tiles.scope import Loop
from . import one_pass
from .defaults import attention_configurations
from .lists import Carried, Span, blocks, declare, list_places, share, stretch, told_by_ends


def listed_rows(task: ListedRowsTask, context: Context) -> Program:
    """The tile program of an attention over listed rows."""
    configuration = next(attention_configurations(context, task.block, task.over))
    return _program(task, context.with_blocks(configuration.blocks), configuration.launch)


def _program(task: ListedRowsTask, context: Context, launch: Launch) -> Program:
    lists = task.lists
    assert lists is not None
    assert lists.shares is not None
    builder = Builder(task.name)
    evaluator = TileEvaluator(builder, context)
    others = [d for d in (*task.queries, *task.values) if d != task.block]
    builder.shares[lists.shares] = task.block
    place_grid(evaluator, [*others, lists.shares], None)
    declare(evaluator, [n for n in task.writes if n not in (*task.kept, lists.places)])
    declare(evaluator, task.kept, kept=True)
    declare(evaluator, [lists.places], kept=True, nonnegative=True)
    for dim in (task.block, task.over):
        builder.tiles[dim] = Tile(dim, context.blocks.get(dim, 64))
    with _rows_of_share(evaluator, lists):
        start = one_pass.start(evaluator, task, evaluator.tile_axes(task.queries))
        _keep(evaluator, task, [value for _, value in start])
    with _listed(evaluator, task, lists) as listed:
        carried = _kept(evaluator, task, [name for name, _ in start])
        _keep(evaluator, task, _stretch_of_keys(evaluator, task, lists, carried, listed))
    with _rows_of_share(evaluator, lists):
        builder.comment("normalise and store")
        kept = _kept(evaluator, task, [name for name, _ in start])
        one_pass.store(evaluator, task, [value for _, value in kept])
    return builder.finish(context.launch(launch), task.about)


def _share(evaluator: Evaluator, lists: Lists) -> tuple[Value, Value]:
    """The first row of the program's share, and the end."""
    return share(evaluator, lists, lists.along, lists.size)


def _rows_of_share(evaluator: Evaluator, lists: Lists) -> AbstractContextManager[Loop]:
    """Within: a block of the share's rows, one after another."""
    return blocks(evaluator, lists.along, *_share(evaluator, lists))


def _place(evaluator: Evaluator, lists: Lists, at: Value) -> list[tuple[str, Value]]:
    """Where a place of the share's list is, counted from its first."""
    at = integer(evaluator, "add", at, _share(evaluator, lists)[0])
    dims = evaluator.context.buffers[lists.places].dims
    return [(d, at if d == lists.along else evaluator.position(d)) for d in dims]


@contextmanager
def _listed(evaluator: Evaluator, task: ListedRowsTask, lists: Lists) -> Iterator[Rows]:
    """Within: a stretch, and a block of the rows that are listed for it."""
    builder, dim, stretches = evaluator.builder, task.block, lists.stretches
    name, zero = dim.lower(), builder.constant(0, DType.INT32)
    first, end = _share(evaluator, lists)
    low, high = _stretches_of_share(evaluator, task, lists)
    with builder.loop(f"{stretches.lower()}_turn", low, high, 1, []) as turns:
        builder.place(stretches, turns.variable)
        count = list_places(evaluator, lists, lambda at: _place(evaluator, lists, at), first, end)
        symbol = builder.tiles[dim].symbol
        with builder.loop(f"{name}_listed", zero, count, symbol, []) as loop:
            slot = builder.range(dim, loop.variable, f"{name}_slot")
            exists = builder.elementwise("lt", slot, count, dtype=DType.BOOL)
            row = builder.load(lists.places, _place(evaluator, lists, slot), exists, 0, name)
            builder.place(dim, row, exists)
            builder.comment(f"rows that see something of a stretch of {task.over}")
            yield _Listed(evaluator, lists, loop.variable, count)
            loop.yields = ()
        turns.yields = ()


def _stretches_of_share(
    evaluator: Evaluator, task: ListedRowsTask, lists: Lists
) -> tuple[Value, Value]:
    """The first stretch that the mask's bounds let any row of the share see, and the end."""
    builder, over = evaluator.builder, task.over
    zero, size = builder.constant(0, DType.INT32), evaluator.size(over)
    rows = Span(evaluator, lists.along, *_share(evaluator, lists))
    part = find_part(rows, told_by_ends(task.ranges), zero, size)
    length = builder.constant(lists.length, DType.INT32)
    low = integer(evaluator, "floordiv", part.start, length)
    less = builder.constant(lists.length - 1, DType.INT32)
    high = integer(evaluator, "add", integer(evaluator, "max", part.stop, zero), less)
    name = lists.stretches.lower()
    return low, integer(evaluator, "floordiv", high, length, hint=f"{name}_end")


class _Listed(Rows):
    """A block of a list of rows, which are in order."""

    def __init__(self, evaluator: Evaluator, lists: Lists, start: Value, count: Value) -> None:
        super().__init__(evaluator, lists.along)
        self.lists, self.start, self.count = lists, start, count

    def row(self, row: Row) -> Value:
        """The first or last row."""
        evaluator, builder = self.evaluator, self.evaluator.builder
        place, which = self.start, "first"
        if row is Row.LAST:
            place = integer(evaluator, "add", self.start, builder.block(self.lists.along))
            place = integer(evaluator, "min", place, self.count)
            place = integer(evaluator, "sub", place, builder.constant(1, DType.INT32))
            which = "last"
        hint = f"{self.lists.along.lower()}_{which}"
        return builder.load(self.lists.places, _place(evaluator, self.lists, place), hint=hint)


def _stretch_of_keys(
    evaluator: Evaluator, task: ListedRowsTask, lists: Lists, carried: Carried, rows: Rows
) -> tuple[Value, ...]:
    """What the rows at hand carry once they have seen the stretch at hand."""
    body = one_pass.body(evaluator, task, evaluator.tile_axes(task.queries))
    builder, over, name = evaluator.builder, task.over, task.over.lower()
    first, end = stretch(evaluator, lists, over)
    part = find_part(rows, task.ranges, first, end)
    symbol, carried = builder.tiles[over].symbol, list(carried)
    for start, stop, whole in ((part.start, part.rest, True), (part.rest, part.stop, False)):
        with builder.loop(f"{name}_start", start, stop, symbol, carried) as loop:
            position = builder.range(over, loop.variable, name)
            exists = None
            if not whole:
                exists = builder.elementwise(
                    "lt", position, end, dtype=DType.BOOL, hint=f"{name}_exists"
                )
            builder.place(over, position, exists)
            mask = all_of(list(task.ranges.rest)) if whole else task.mask
            loop.yields = body(loop.carried, mask, exists)
        carried = [(n, v) for (n, _), v in zip(carried, loop.results, strict=True)]
    return tuple(v for _, v in carried)


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


__all__ = ["listed_rows"]
