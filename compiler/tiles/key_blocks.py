"""Which blocks of an axis a program visits, and which of them whole.

The ranges that the mask analysis found, per row, become numbers for the block of rows at hand:
ranges of *full* blocks, where no mask is applied, and of *partial* ones, where it is. Ranges of
several disjuncts are made disjoint, so that no block is visited twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...ir.expression import Call, Expr, Index, Kind, Ref, call
from ...ir.key_ranges import Bound, Conjunct, KeyRanges, Row, RowCondition, Search
from ...ir.node import At, Point
from ...ir.promises import DividingBlocks
from ...ir.rewriting import substitute, transform
from ...ir.tile import BufferArgument, DType, Tile, Value
from ..analysis.facts import placed
from .evaluator import Evaluator

_FAR = 2**30
_DIVIDED = 64  # stretches that blocks of every default divide


@dataclass(frozen=True)
class BlockRange:
    """Blocks from ``start`` (inclusive) to ``stop``; starts are multiples of the block size."""

    start: Value
    stop: Value


@dataclass(frozen=True)
class BlockRanges:
    """The ranges of full and of partial blocks of one axis."""

    full: tuple[BlockRange, ...]
    partial: tuple[BlockRange, ...]


@dataclass(frozen=True)
class Bounds:
    """A disjunct's range for the block of rows, and the part that every row sees (or None)."""

    low: Value
    high: Value
    full: tuple[Value, Value] | None


class Rows:
    """The block of rows that a program instance takes, for evaluating bounds over it."""

    def __init__(self, evaluator: Evaluator, dim: str | None) -> None:
        self.evaluator = evaluator
        self.dim = dim

    def _at(self, expr: Expr, row: Row) -> Expr:
        """``expr`` at the first or last row."""
        if self.dim is None or row is Row.ANY:
            return expr
        assert row is not Row.EVERY
        place = _at_row(self.dim, row)
        self.evaluator.builder.bind(place, self.row(row))
        return placed(expr, {self.dim: place})

    def row(self, row: Row) -> Value:
        """The first or last row."""
        evaluator, dim = self.evaluator, self.dim
        assert dim is not None
        builder = evaluator.builder
        start = builder.begin(dim)
        if row is Row.FIRST:
            return start
        name = dim.lower()
        end = integer(evaluator, "add", start, builder.block(dim))
        end = integer(evaluator, "min", end, evaluator.size(dim), hint=f"{name}_stop")
        one = builder.constant(1, DType.INT32)
        return integer(evaluator, "sub", end, one, hint=f"{name}_last")

    def extreme(self, bound: Bound, *, loose: bool, largest: bool) -> Value | None:
        """The largest or smallest value of a bound over the rows; None: nothing is known."""
        value = bound.loose if loose else bound.tight
        row = bound.row(largest)
        if self.dim is None:
            row = Row.ANY
        if row is Row.EVERY and bound.searches:
            return None
        if row is Row.EVERY:
            return self._over_rows(self.evaluator.integer(value), largest)
        for search in bound.searches:
            found = self._search(search, row)
            if found is None:
                return None
        return self.evaluator.integer(self._at(self._named(value, bound, row), row))

    def _named(self, value: Expr, bound: Bound, row: Row) -> Expr:
        refs: dict[Expr, Expr] = {s.ref: _at_row(s.name, row) for s in bound.searches}
        return substitute(value, refs)

    def _search(self, search: Search, row: Row) -> Value | None:
        evaluator = self.evaluator
        buffer = evaluator.context.buffers.get(search.table.name)
        if buffer is None or self.dim in search.table.axes:
            return None
        evaluator.builder.buffer(BufferArgument(buffer.name, buffer.dims, buffer.dtype))
        index = [(d, evaluator.position(d)) for d in buffer.dims if d != search.dim]
        if any(v.axes for _, v in index):
            return None
        value = evaluator.evaluate(self._at(search.value, row))
        if value.axes:
            return None
        found = evaluator.builder.search(
            buffer.name, index, search.dim, evaluator.size(search.dim), value, search.side
        )
        evaluator.builder.bind(_at_row(search.name, row), found)
        return found

    def _over_rows(self, value: Value, largest: bool) -> Value:
        """The extreme of a value over the rows that exist."""
        if not value.axes:
            return value
        (dim,) = value.axes
        value = self.evaluator.masked(value, dim, -_FAR if largest else _FAR)
        return self.evaluator.builder.reduce("max" if largest else "min", value, dim)

    def holds(self, condition: RowCondition, some: bool) -> Value:
        """Whether a condition holds for some row, or for every row."""
        row = condition.row(some) if self.dim is not None else Row.ANY
        if row is not Row.EVERY:
            return self.evaluator.condition(self._at(condition.value, row))
        builder = self.evaluator.builder
        truth = builder.cast(self.evaluator.condition(condition.value), DType.INT32)
        reduced = self._over_rows(truth, some)
        zero = builder.constant(0, DType.INT32)
        return builder.elementwise("gt", reduced, zero, dtype=DType.BOOL)


def integer(evaluator: Evaluator, fn: str, *args: Value, hint: str = "") -> Value:
    """Integer arithmetic on scalars."""
    return evaluator.builder.elementwise(fn, *args, dtype=DType.INT32, hint=hint)


def find_block_ranges(
    evaluator: Evaluator, ranges: KeyRanges, size: Value, bounded: bool = False
) -> BlockRanges:
    """The ranges along ``ranges.axis`` for the block of rows along ``ranges.block``.

    ``bounded``: blocks count as full where all bounds hold, whatever else the mask says.
    """
    axis = ranges.axis
    rows = Rows(evaluator, _rows_of(evaluator, ranges))
    found = [_range(rows, c, size, axis, bounded or c.exact) for c in ranges.disjuncts]
    if not ranges.ordered:
        found = _sorted(evaluator, found)
    full: list[BlockRange] = []
    partial: list[BlockRange] = []
    end: Value | None = None
    for n, item in enumerate(found):
        whole, parts, end = _cut(rows, item, axis, end, n < len(found) - 1)
        full.extend(whole)
        partial.extend(parts)
    return BlockRanges(tuple(full), tuple(partial))


def find_range(evaluator: Evaluator, ranges: KeyRanges, size: Value) -> tuple[Value, Value]:
    """The first position and the end of ranges in one piece, for the block of rows."""
    (conjunct,) = ranges.disjuncts
    rows = Rows(evaluator, _rows_of(evaluator, ranges))
    found = _range(rows, conjunct, size, ranges.axis, exact=False)
    return found.low, found.high


def find_bounds(rows: Rows, ranges: KeyRanges, size: Value) -> Bounds:
    """What bounds in one piece say of rows, whatever else the mask says."""
    (conjunct,) = ranges.disjuncts
    return _range(rows, conjunct, size, ranges.axis, exact=True)


@dataclass(frozen=True)
class Part:
    """Blocks of a stretch that rows visit, of which those before ``rest`` are seen whole."""

    start: Value
    rest: Value
    stop: Value


def find_part(rows: Rows, ranges: KeyRanges, first: Value, end: Value) -> Part:
    """The blocks of [first, end), counted from its first position, that any of the rows sees.

    Blocks count as seen whole where all bounds hold, whatever else the mask says.
    """
    evaluator, axis = rows.evaluator, ranges.axis
    (conjunct,) = ranges.disjuncts
    name = axis.lower()
    found = _range(rows, conjunct, end, axis, exact=True)
    start = _block_before(evaluator, axis, first, found.low) if conjunct.lower else first
    stop = integer(evaluator, "min", found.high, end, hint=f"{name}_stop")
    if found.full is None:
        return Part(start, start, stop)
    low, high = found.full
    if conjunct.lower:  # rows that do not see the first block whole are seldom worth a third walk
        sees = evaluator.builder.elementwise("le", low, start, dtype=DType.BOOL)
        high = evaluator.where(sees, high, start)
    rest = _block_before(evaluator, axis, start, integer(evaluator, "min", high, stop))
    return Part(start, rest, stop)


def _block_before(evaluator: Evaluator, axis: str, first: Value, value: Value) -> Value:
    """The start of the block with a position, of blocks counted from ``first``, where it begins."""
    ahead = integer(evaluator, "sub", value, first)
    ahead = down_to_block(evaluator, ahead, axis, "")
    return integer(evaluator, "add", first, ahead, hint=f"{axis.lower()}_whole")


def _rows_of(evaluator: Evaluator, ranges: KeyRanges) -> str | None:
    """The axis of the rows, where the program has a block of them."""
    block, builder = ranges.block, evaluator.builder
    tiled = any(g.dim == block and g.tiled for g in builder.grid)
    return block if tiled or block in builder.in_turn else None


def _range(rows: Rows, conjunct: Conjunct, size: Value, axis: str, exact: bool) -> Bounds:
    """[low, high) and, where bounds are ``exact``, the full part, by the analysis's rules."""
    evaluator = rows.evaluator
    low = _ends(rows, conjunct.lower, loose=True, largest=False)
    high = _ends(rows, conjunct.upper, loose=True, largest=True)
    zero = evaluator.builder.constant(0, DType.INT32)
    name = axis.lower()
    lows, highs = [v for v in low if v], [v for v in high if v]
    start = _fold(evaluator, "max", [*lows, zero], f"{name}_low") if lows else zero
    stop = _fold(evaluator, "min", [*highs, size], f"{name}_high") if highs else size
    for condition in conjunct.conditions:
        some = rows.holds(condition, some=True)
        stop = evaluator.where(some, stop, zero, f"{name}_high")
    return Bounds(start, stop, _full_part(rows, conjunct, size) if exact else None)


def _full_part(rows: Rows, conjunct: Conjunct, size: Value) -> tuple[Value, Value] | None:
    evaluator = rows.evaluator
    lows = _ends(rows, conjunct.lower, loose=False, largest=True)
    highs = _ends(rows, conjunct.upper, loose=False, largest=False)
    if None in lows or None in highs:
        return None
    zero = evaluator.builder.constant(0, DType.INT32)
    low = _fold(evaluator, "max", [*(v for v in lows if v), zero], "") if lows else zero
    high = _fold(evaluator, "min", [*(v for v in highs if v), size], "") if highs else size
    for condition in conjunct.conditions:
        every = rows.holds(condition, some=False)
        high = evaluator.where(every, high, zero)
    return low, high


def _ends(rows: Rows, bounds: Sequence[Bound], *, loose: bool, largest: bool) -> list[Value | None]:
    return [rows.extreme(bound, loose=loose, largest=largest) for bound in bounds]


def _fold(evaluator: Evaluator, fn: str, values: Sequence[Value], hint: str) -> Value:
    result = values[0]
    for n, value in enumerate(values[1:], 2):
        result = integer(evaluator, fn, result, value, hint=hint if n == len(values) else "")
    return result


def _sorted(evaluator: Evaluator, ranges: list[Bounds]) -> list[Bounds]:
    """The ranges by their lower ends: a network of exchanges on numbers."""
    items = list(ranges)
    for last in range(len(items) - 1, 0, -1):
        for n in range(last):
            items[n], items[n + 1] = _exchange(evaluator, items[n], items[n + 1])
    return items


def _exchange(evaluator: Evaluator, a: Bounds, b: Bounds) -> tuple[Bounds, Bounds]:
    swap = evaluator.builder.elementwise("gt", a.low, b.low, dtype=DType.BOOL)

    def pick(x: Value, y: Value) -> tuple[Value, Value]:
        return evaluator.where(swap, y, x), evaluator.where(swap, x, y)

    low, high = pick(a.low, b.low), pick(a.high, b.high)
    zero = evaluator.builder.constant(0, DType.INT32)
    none = (zero, zero)
    first, second = a.full or none, b.full or none
    starts, stops = pick(first[0], second[0]), pick(first[1], second[1])
    keep = a.full is not None or b.full is not None
    return (
        Bounds(low[0], high[0], (starts[0], stops[0]) if keep else None),
        Bounds(low[1], high[1], (starts[1], stops[1]) if keep else None),
    )


def _cut(
    rows: Rows, item: Bounds, axis: str, end: Value | None, more: bool
) -> tuple[list[BlockRange], list[BlockRange], Value | None]:
    """Blocks of one range that no earlier range took: full ones, partial ones, the new end."""
    evaluator = rows.evaluator
    name = axis.lower()
    low = item.low
    zero = evaluator.builder.constant(0, DType.INT32)
    aligned = low == zero or evaluator.builder.constant_of(low) == 0
    start = low if aligned else down_to_block(evaluator, low, axis, f"{name}_first")
    if end is not None:
        start = integer(evaluator, "max", start, end, hint=f"{name}_first")
    stop = item.high
    new_end = up_to_block(evaluator, stop, axis, f"{name}_end") if more else None
    if new_end is not None and end is not None:
        new_end = integer(evaluator, "max", new_end, end, hint=f"{name}_end")
    if item.full is None:
        return [], [BlockRange(start, stop)], new_end
    full_low, full_high = item.full
    no_left = end is None and evaluator.builder.constant_of(full_low) == 0
    if no_left:
        full_start = start
    else:
        full_start = up_to_block(evaluator, full_low, axis, f"{name}_full_start")
        full_start = integer(evaluator, "max", full_start, start, hint=f"{name}_full_start")
    full_stop = down_to_block(evaluator, full_high, axis, f"{name}_full_stop")
    full_stop = integer(evaluator, "max", full_stop, full_start, hint=f"{name}_full_stop")
    full = [BlockRange(full_start, full_stop)]
    right = BlockRange(full_stop, stop)
    if no_left:
        return full, [right], new_end
    left_stop = integer(evaluator, "min", full_start, stop, hint=f"{name}_left_stop")
    return full, [BlockRange(start, left_stop), right], new_end


def down_to_block(evaluator: Evaluator, value: Value, axis: str, hint: str) -> Value:
    """The start of the block that holds position ``value``."""
    block = evaluator.builder.block(axis)
    zero = evaluator.builder.constant(0, DType.INT32)
    nonnegative = integer(evaluator, "max", value, zero)
    blocks = integer(evaluator, "floordiv", nonnegative, block)
    return integer(evaluator, "mul", blocks, block, hint=hint)


def up_to_block(evaluator: Evaluator, value: Value, axis: str, hint: str) -> Value:
    """The first start of a block that is not before ``value``."""
    builder = evaluator.builder
    block = builder.block(axis)
    less = integer(evaluator, "sub", block, builder.constant(1, DType.INT32), hint="fill")
    return down_to_block(evaluator, integer(evaluator, "add", value, less), axis, hint)


# --------------------------------------------------------------------------------- the loops

Share = Callable[[Value, Value, Value], tuple[Value, Value]]
LoopBody = Callable[[tuple[Value, ...], Expr | None, Value | None], tuple[Value, ...]]


def sweep(
    evaluator: Evaluator,
    axis: str,
    ranges: KeyRanges,
    mask: Expr | None,
    carried: Sequence[tuple[str, Value]],
    body: LoopBody,
    share: Share | None = None,
    rest: Expr | None = None,
) -> tuple[Value, ...]:
    """Visit the blocks of ``axis`` that the ranges admit; what ``carried`` has become.

    ``share`` narrows each run, from a start to a stop by a step, to this program's part of it.
    ``body`` gets what is carried, the mask to apply (None in full blocks) and which positions of
    the block exist (None: all), and gives what is carried on. ``rest``: what the mask is where all
    bounds hold; blocks of these alone are then gone through by themselves.
    """
    builder = evaluator.builder
    builder.tiles.setdefault(axis, Tile(axis, evaluator.context.blocks.get(axis, 64)))
    found = find_block_ranges(evaluator, ranges, evaluator.size(axis), rest is not None)
    state = tuple(carried)
    for full, group in ((True, found.full), (False, found.partial)):
        if group:
            applied = rest if full else mask
            results = _visit(evaluator, axis, group, applied, full, state, body, share)
            state = tuple((h, v) for (h, _), v in zip(state, results, strict=True))
    return tuple(v for _, v in state)


def _visit(
    evaluator: Evaluator,
    axis: str,
    group: tuple[BlockRange, ...],
    mask: Expr | None,
    full: bool,
    carried: Sequence[tuple[str, Value]],
    body: LoopBody,
    share: Share | None,
) -> tuple[Value, ...]:
    builder = evaluator.builder
    name = axis.lower()
    symbol = builder.tiles[axis].symbol
    if len(group) == 1:
        start, stop, step = group[0].start, group[0].stop, symbol
        variable = f"{name}_start"
    else:
        counts = _counts(evaluator, group, axis)
        start, stop, step = builder.constant(0, DType.INT32), counts[-1], "1"
        variable = f"{name}_turn"
    if share is not None:
        one = builder.constant(1, DType.INT32)
        start, stop = share(start, stop, one if step == "1" else builder.block(axis))
    with builder.loop(variable, start, stop, int(step) if step == "1" else step, carried) as loop:
        begin = loop.variable
        if len(group) > 1:
            begin = _begin(evaluator, group, counts, loop.variable, axis)
        position = builder.range(axis, begin, name)
        bound = None
        if not full:
            bound = builder.elementwise(
                "lt", position, evaluator.size(axis), dtype=DType.BOOL, hint=f"{name}_exists"
            )
        builder.place(axis, position, bound)
        if mask is not None:
            mask = by_block(evaluator, axis, mask)
        kind = "every row sees all of it" if mask is None else "the mask applies"
        builder.comment(f"a block of {axis}: {kind}")
        loop.yields = body(loop.carried, mask, bound)
    return loop.results


def by_block(evaluator: Evaluator, axis: str, mask: Expr) -> Expr:
    """The mask for the block in force: ``j // c`` is one number where blocks divide ``c``.

    ``at(chosen, N=j // 64)`` --> ``at(chosen, N=j_start // 64)``: one truth for a row, not for each
    key of it.
    """
    builder = evaluator.builder
    start = Ref(f"{axis} at the start", frozenset(), Kind.INT, Point(axis, At.ROW))

    def change(node: Expr) -> Expr | None:
        match node:
            case Call("floordiv", (Index(dim), by)) if dim == axis:
                length = evaluator.fixed_number(by)
                if not isinstance(length, int) or length < 1 or length % _DIVIDED:
                    return None
                promise = DividingBlocks(axis, length)
                if not promise.is_kept_by(builder.tiles[axis].block):
                    return None
                builder.promises.add(promise)
                return call("floordiv", start, by)
        return None

    changed = transform(mask, change)
    if changed != mask:
        builder.bind(start, builder.begin(axis))
    return changed


def _counts(evaluator: Evaluator, group: tuple[BlockRange, ...], axis: str) -> list[Value]:
    """How many blocks the first n ranges have, for n = 1, 2, ..."""
    builder = evaluator.builder
    block = builder.block(axis)
    zero = builder.constant(0, DType.INT32)
    less = integer(evaluator, "sub", block, builder.constant(1, DType.INT32), hint="fill")
    totals: list[Value] = []
    for run in group:
        length = integer(evaluator, "sub", run.stop, run.start)
        length = integer(evaluator, "max", length, zero)
        length = integer(evaluator, "add", length, less)
        blocks = integer(evaluator, "floordiv", length, block, hint=f"{axis.lower()}_left_blocks")
        total = blocks if not totals else integer(evaluator, "add", totals[-1], blocks)
        totals.append(total)
    return totals


def _begin(
    evaluator: Evaluator,
    group: tuple[BlockRange, ...],
    counts: list[Value],
    number: Value,
    axis: str,
) -> Value:
    """Where the block of this number begins: a loop walks through the ranges one after another."""
    builder = evaluator.builder
    block = builder.block(axis)
    begin = integer(evaluator, "add", group[0].start, integer(evaluator, "mul", number, block))
    for run, before in zip(group[1:], counts, strict=False):
        rest = integer(evaluator, "sub", number, before)
        here = integer(evaluator, "add", run.start, integer(evaluator, "mul", rest, block))
        later = builder.elementwise("ge", number, before, dtype=DType.BOOL)
        begin = evaluator.where(later, here, begin, f"{axis.lower()}_start")
    return begin


def _at_row(of: str, row: Row) -> Ref:
    """A position, or what a search finds, at the first or the last row of a block."""
    return Ref(f"{of} at the {row.value} row", frozenset(), Kind.INT, Point(of, At.ROW))
