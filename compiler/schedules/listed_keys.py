"""An attention whose rows choose keys stretch by stretch: a stretch of rows, and the keys listed.

    rows j0 ... j1 of a stretch, and all keys, of which a mask hides most
    -->  the keys that the stretch has chosen, block after block of them, without holes

So are the gradients of keys and values: sums over the rows that chose a stretch, which stay where
they are until they are whole. Sums the other way (``across``: the gradients of queries) grow in
memory; then a program takes all stretches of its heads, so that sums have one order.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.task import ListedKeysTask, Lists
from ...ir.tile import DType, Program, Tile, Value
from ..analysis.conditions import all_of
from ..tiles.builder import Builder
from ..tiles.context import Context, Launch
from ..tiles.evaluation import TileEvaluator
from ..tiles.evaluator import Evaluator
from ..tiles.grid import place_grid
from ..tiles.key_blocks import find_bounds, integer
from . import one_pass
from .across import zeros_first
from .defaults import attention_configurations
from .lists import Carried, Index, Span, blocks, declare, list_places, share, stretch, told_by_ends


def listed_keys(task: ListedKeysTask, context: Context) -> Program:
    """The tile program of an attention over listed keys."""
    configuration = next(attention_configurations(context, task.block, task.over))
    return _program(task, context.with_blocks(configuration.blocks), configuration.launch)


def _program(task: ListedKeysTask, context: Context, launch: Launch) -> Program:
    lists = task.lists
    assert lists is not None
    builder = Builder(task.name)
    evaluator = TileEvaluator(builder, context)
    grid = [d for d in (*task.queries, *task.values) if d != task.block]
    if lists.shares is not None:
        builder.shares[lists.shares] = task.block
        grid.append(lists.shares)
    place_grid(evaluator, grid, None)
    declare(evaluator, [n for n in task.writes if n != lists.places])
    declare(evaluator, [lists.places], kept=True, nonnegative=True)
    for dim in (task.block, task.over):
        builder.tiles[dim] = Tile(dim, context.blocks.get(dim, 64))
    if task.across:
        zeros_first(evaluator, task)
    first, end = _stretches(evaluator, lists)
    with builder.loop(f"{lists.stretches.lower()}_turn", first, end, 1, []) as turns:
        builder.place(lists.stretches, turns.variable)
        _one_stretch(evaluator, task, lists)
        turns.yields = ()
    return builder.finish(context.launch(launch), task.about)


def _stretches(evaluator: Evaluator, lists: Lists) -> tuple[Value, Value]:
    """The first stretch of the program's share, and the end."""
    if lists.shares is None:
        return evaluator.builder.constant(0, DType.INT32), evaluator.size(lists.stretches)
    return share(evaluator, lists, lists.stretches, lists.size // lists.length)


def _one_stretch(evaluator: Evaluator, task: ListedKeysTask, lists: Lists) -> None:
    """All that the rows of the stretch in force see."""
    first, end = stretch(evaluator, lists, task.block)
    span = Span(evaluator, task.block, first, end)
    size = evaluator.size(task.over)
    bounds = find_bounds(span, told_by_ends(task.ranges), size)
    count = list_places(
        evaluator, lists, lambda at: _place(evaluator, lists, at), bounds.low, bounds.high
    )
    with blocks(evaluator, task.block, first, end) as loop:
        rows = evaluator.tile_axes(task.queries)
        start = one_pass.start(evaluator, task, rows)
        block_end = integer(evaluator, "add", loop.variable, evaluator.builder.block(task.block))
        block_end = integer(evaluator, "min", block_end, end)
        block = Span(evaluator, task.block, loop.variable, block_end)
        state = _listed(evaluator, task, lists, block, count, start)
        one_pass.store(evaluator, task, state)


def _place(evaluator: Evaluator, lists: Lists, at: Value) -> Index:
    dims = evaluator.context.buffers[lists.places].dims
    return [(d, at if d == lists.along else evaluator.position(d)) for d in dims]


@dataclass(frozen=True)
class _Entries:
    """Entries of a list: [start, rest) and [more, stop), of which each row sees some keys, and
    [rest, more), whole blocks, of which each row sees all that the mask's bounds have a say in."""

    start: Value
    rest: Value
    more: Value
    stop: Value


def _entries(
    evaluator: Evaluator, task: ListedKeysTask, lists: Lists, block: Span, count: Value
) -> _Entries:
    """The entries that a block of rows visits: bounds on keys, found in their list."""
    (conjunct,) = task.ranges.disjuncts
    zero = evaluator.builder.constant(0, DType.INT32)
    bounds = find_bounds(block, task.ranges, evaluator.size(task.over))
    held = bool(conjunct.conditions)

    def before(position: Value) -> Value:
        builder, dims = evaluator.builder, evaluator.context.buffers[lists.places].dims
        place = [(d, evaluator.position(d)) for d in dims if d != lists.along]
        return builder.search(lists.places, place, lists.along, count, position, "left")

    start = before(bounds.low) if conjunct.lower else zero
    stop = before(bounds.high) if conjunct.upper or held else count
    stop = integer(evaluator, "max", start, stop)
    if bounds.full is None:
        return _Entries(start, start, start, stop)
    low, high = bounds.full
    rest = before(low) if conjunct.lower else zero
    rest = integer(evaluator, "min", integer(evaluator, "max", rest, start), stop)
    more = before(high) if conjunct.upper or held else count
    more = integer(evaluator, "min", more, stop)
    size = evaluator.builder.block(task.over)
    seen = integer(evaluator, "max", integer(evaluator, "sub", more, rest), zero)
    seen = integer(evaluator, "mul", integer(evaluator, "floordiv", seen, size), size)
    return _Entries(start, rest, integer(evaluator, "add", rest, seen), stop)


def _listed(
    evaluator: Evaluator,
    task: ListedKeysTask,
    lists: Lists,
    block: Span,
    count: Value,
    start: Carried,
) -> tuple[Value, ...]:
    """What a block of rows carries once it has seen the keys listed for its stretch."""
    builder, name = evaluator.builder, task.over.lower()
    body = one_pass.body(evaluator, task, evaluator.tile_axes(task.queries))
    entries = _entries(evaluator, task, lists, block, count)
    symbol, size = builder.tiles[task.over].symbol, builder.block(task.over)
    zero, carried = builder.constant(0, DType.INT32), list(start)

    def turn(begin: Value, stop: Value | None) -> Value | None:
        """Place a block of the list; which of its entries are there, where some may not be."""
        slot, exists = builder.range(task.over, begin, f"{name}_slot"), None
        if stop is not None:
            exists = builder.elementwise("lt", slot, stop, dtype=DType.BOOL)
        key = builder.load(lists.places, _place(evaluator, lists, slot), exists, 0, name)
        builder.place(task.over, key, exists)
        return exists

    with builder.loop(f"{name}_listed", entries.rest, entries.more, symbol, carried) as loop:
        turn(loop.variable, None)
        builder.comment(f"{task.over} that have chosen the stretch: every row sees all of them")
        loop.yields = body(loop.carried, all_of(list(task.ranges.rest)), None)
    carried = [(n, v) for (n, _), v in zip(carried, loop.results, strict=True)]
    first, last = (
        _blocks_between(evaluator, a, b, size)
        for a, b in ((entries.start, entries.rest), (entries.more, entries.stop))
    )
    turns = integer(evaluator, "add", first, last)
    with builder.loop(f"{name}_turn", zero, turns, 1, carried) as loop:
        early = builder.elementwise("lt", loop.variable, first, dtype=DType.BOOL)
        number = integer(evaluator, "sub", loop.variable, evaluator.where(early, zero, first))
        begin = evaluator.where(early, entries.start, entries.more)
        begin = integer(evaluator, "add", begin, integer(evaluator, "mul", number, size))
        exists = turn(begin, evaluator.where(early, entries.rest, entries.stop))
        builder.comment(f"{task.over} that have chosen the stretch: the mask applies")
        loop.yields = body(loop.carried, task.mask, exists)
    return loop.results


def _blocks_between(evaluator: Evaluator, start: Value, stop: Value, size: Value) -> Value:
    less = integer(evaluator, "sub", size, evaluator.builder.constant(1, DType.INT32))
    count = integer(evaluator, "add", integer(evaluator, "sub", stop, start), less)
    return integer(evaluator, "floordiv", count, size)


__all__ = ["listed_keys"]
