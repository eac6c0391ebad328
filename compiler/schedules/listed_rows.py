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
from dataclasses import replace

from ...ir.key_ranges import KeyRanges, Row, Trend
from ...ir.normaliser import Rescaled
from ...ir.task import ListedRowsTask, RowLists
from ...ir.tile import BufferArgument, DType, Program, Tile, Value
from ..analysis.conditions import all_of
from ..tiles.builder import Builder
from ..tiles.context import Context, Launch
from ..tiles.evaluation import TileEvaluator
from ..tiles.evaluator import Evaluator
from ..tiles.grid import place_grid, store_result
from ..tiles.key_blocks import Rows, find_part, integer
from ..tiles.scope import Loop
from .attention import rescaled_body, start_rescaled, store_rescaled
from .defaults import attention_configurations

Carried = Sequence[tuple[str, Value]]


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
    _declare(evaluator, [n for n in task.writes if n not in (*task.kept, lists.rows)], written=True)
    _declare(evaluator, task.kept, written=True, kept=True)
    _declare(evaluator, [lists.rows], written=True, kept=True)
    for dim in (task.block, task.over):
        builder.tiles[dim] = Tile(dim, context.blocks.get(dim, 64))
    with _rows_of_share(evaluator, lists):
        rows = evaluator.tile_axes(task.queries)
        start = start_rescaled(evaluator, task, form, rows)
        _keep(evaluator, task, [value for _, value in start])
    with _listed(evaluator, task, lists) as listed:
        carried = _kept(evaluator, task, [name for name, _ in start])
        _keep(evaluator, task, _stretch_of_keys(evaluator, task, form, carried, listed))
    with _rows_of_share(evaluator, lists):
        builder.comment("normalise and store")
        kept = _kept(evaluator, task, [name for name, _ in start])
        store_rescaled(evaluator, task, form, [value for _, value in kept])
    return builder.finish(context.launch(launch), task.about)


def _declare(
    evaluator: Evaluator, names: Sequence[str], written: bool = False, kept: bool = False
) -> None:
    for name in names:
        buffer = evaluator.context.buffers[name]
        own = buffer.dtype is DType.INT32 and kept
        evaluator.builder.buffer(
            BufferArgument(name, buffer.dims, buffer.dtype, written, nonnegative=own, kept=kept)
        )


def _first_of_share(evaluator: Evaluator, lists: RowLists) -> Value:
    size = evaluator.builder.constant(lists.size, DType.INT32)
    share = evaluator.position(lists.shares)
    return integer(evaluator, "mul", share, size, hint=f"{lists.block.lower()}_first")


def _place(evaluator: Evaluator, lists: RowLists, at: Value) -> list[tuple[str, Value]]:
    """Where a place of the share's list is, counted from its first."""
    at = integer(evaluator, "add", at, _first_of_share(evaluator, lists))
    dims = evaluator.context.buffers[lists.rows].dims
    return [(d, at if d == lists.block else evaluator.position(d)) for d in dims]


@contextmanager
def _rows_of_share(evaluator: Evaluator, lists: RowLists, carried: Carried = ()) -> Iterator[Loop]:
    """Within: a block of the share's rows, one after another."""
    builder, dim, name = evaluator.builder, lists.block, lists.block.lower()
    first = _first_of_share(evaluator, lists)
    end = integer(evaluator, "add", first, builder.constant(lists.size, DType.INT32))
    end = integer(evaluator, "min", end, evaluator.size(dim), hint=f"{name}_end")
    with builder.loop(f"{name}_start", first, end, builder.tiles[dim].symbol, carried) as loop:
        position = builder.range(dim, loop.variable, name)
        exists = builder.elementwise("lt", position, end, dtype=DType.BOOL, hint=f"{name}_exists")
        builder.place(dim, position, exists)
        builder.comment(f"a block of {dim}")
        loop.yields = ()
        yield loop


@contextmanager
def _listed(evaluator: Evaluator, task: ListedRowsTask, lists: RowLists) -> Iterator[Rows]:
    """Within: a stretch, and a block of the rows that are listed for it."""
    builder, dim, stretches = evaluator.builder, task.block, lists.stretches
    name, zero = dim.lower(), builder.constant(0, DType.INT32)
    low, high = _stretches_of_share(evaluator, task, lists)
    with builder.loop(f"{stretches.lower()}_turn", low, high, 1, []) as turns:
        builder.place(stretches, turns.variable)
        count = _list(evaluator, lists)
        symbol = builder.tiles[dim].symbol
        with builder.loop(f"{name}_listed", zero, count, symbol, []) as loop:
            slot = builder.range(dim, loop.variable, f"{name}_slot")
            exists = builder.elementwise("lt", slot, count, dtype=DType.BOOL)
            row = builder.load(lists.rows, _place(evaluator, lists, slot), exists, 0, name)
            builder.place(dim, row, exists)
            builder.comment(f"rows that see something of a stretch of {task.over}")
            yield _Listed(evaluator, lists, loop.variable, count)
            loop.yields = ()
        turns.yields = ()


def _stretches_of_share(
    evaluator: Evaluator, task: ListedRowsTask, lists: RowLists
) -> tuple[Value, Value]:
    """The first stretch that the mask's bounds let any row of the share see, and the end."""
    builder, over = evaluator.builder, task.over
    zero, size = builder.constant(0, DType.INT32), evaluator.size(over)
    part = find_part(_Share(evaluator, lists), _told_by_ends(task.ranges), zero, size)
    length = builder.constant(lists.length, DType.INT32)
    low = integer(evaluator, "floordiv", part.start, length)
    less = builder.constant(lists.length - 1, DType.INT32)
    high = integer(evaluator, "add", integer(evaluator, "max", part.stop, zero), less)
    name = lists.stretches.lower()
    return low, integer(evaluator, "floordiv", high, length, hint=f"{name}_end")


def _told_by_ends(ranges: KeyRanges) -> KeyRanges:
    """The bounds that the first or last of any rows tells, without a look at the others."""
    (conjunct,) = ranges.disjuncts
    lower, upper = (
        tuple(b for b in bounds if b.trend is not Trend.UNKNOWN and not b.searches)
        for bounds in (conjunct.lower, conjunct.upper)
    )
    told = replace(conjunct, lower=lower, upper=upper, conditions=())
    return replace(ranges, disjuncts=(told,))


def _list(evaluator: Evaluator, lists: RowLists) -> Value:
    """List the rows of the share that see something of the stretch at hand; how many they are."""
    builder = evaluator.builder
    start = [("count", builder.constant(0, DType.INT32))]
    with _rows_of_share(evaluator, lists, start) as loop:
        (count,) = loop.carried
        chosen = evaluator.condition(lists.chosen, "chosen")
        chosen = evaluator.both(chosen, builder.bound(lists.block)) or chosen
        flag = builder.cast(chosen, DType.INT32)
        before = integer(evaluator, "sub", count, builder.constant(1, DType.INT32))
        before = integer(evaluator, "add", before, builder.scan(flag, lists.block))
        place = _place(evaluator, lists, before)
        builder.store(lists.rows, place, builder.position(lists.block), chosen)
        added = builder.reduce("sum", flag, lists.block)
        loop.yields = (integer(evaluator, "add", count, added),)
    return loop.results[0]


class _Share(Rows):
    """The rows of a share, for bounds that their first or last row tells."""

    def __init__(self, evaluator: Evaluator, lists: RowLists) -> None:
        super().__init__(evaluator, lists.block)
        self.lists = lists

    def row(self, row: Row) -> Value:
        """The first or last row."""
        evaluator = self.evaluator
        first = _first_of_share(evaluator, self.lists)
        if row is Row.FIRST:
            return first
        size = evaluator.builder.constant(self.lists.size, DType.INT32)
        end = integer(evaluator, "add", first, size)
        end = integer(evaluator, "min", end, evaluator.size(self.lists.block))
        return integer(evaluator, "sub", end, evaluator.builder.constant(1, DType.INT32))


class _Listed(Rows):
    """A block of a list of rows, which are in order."""

    def __init__(self, evaluator: Evaluator, lists: RowLists, start: Value, count: Value) -> None:
        super().__init__(evaluator, lists.block)
        self.lists, self.start, self.count = lists, start, count

    def row(self, row: Row) -> Value:
        """The first or last row."""
        evaluator, builder = self.evaluator, self.evaluator.builder
        place, which = self.start, "first"
        if row is Row.LAST:
            place = integer(evaluator, "add", self.start, builder.block(self.lists.block))
            place = integer(evaluator, "min", place, self.count)
            place = integer(evaluator, "sub", place, builder.constant(1, DType.INT32))
            which = "last"
        hint = f"{self.lists.block.lower()}_{which}"
        return builder.load(self.lists.rows, _place(evaluator, self.lists, place), hint=hint)


def _stretch_of_keys(
    evaluator: Evaluator, task: ListedRowsTask, form: Rescaled, carried: Carried, rows: Rows
) -> tuple[Value, ...]:
    """What the rows at hand carry once they have seen the stretch at hand."""
    lists = task.lists
    assert lists is not None
    body = rescaled_body(evaluator, task, form, evaluator.tile_axes(task.queries))
    builder, over, name = evaluator.builder, task.over, task.over.lower()
    length = builder.constant(lists.length, DType.INT32)
    first = integer(evaluator, "mul", evaluator.position(lists.stretches), length)
    end = integer(evaluator, "add", first, length)
    end = integer(evaluator, "min", end, evaluator.size(over), hint=f"{name}_end")
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
