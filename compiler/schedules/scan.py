"""The scan schedule: states that are affine over a semiring, many rows at a time.

A row maps the states s to A s + b, with the semiring's sum and product; one row after another is
again such a map, (A2, b2) after (A1, b1) = (A2 A1, A2 b1 + b2), and that is associative: the maps
from a block's start to each of its rows come out of one parallel scan (Blelloch 1990; Martin and
Cundy 2018, arXiv 1709.04057). What stands in A is what the step's algebra has put there; a place
that no product can reach is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...ir.expression import Expr
from ...ir.recurrence_forms import Affine
from ...ir.recurrence_tasks import PLACES, ScanTask
from ...ir.reductions import NEUTRAL
from ...ir.single_assignment import after_row, before_row
from ...ir.targets import THREADS_PER_WARP, CpuTarget
from ...ir.tile import DType, Program, Tile, Value
from ..tiles.context import Context, Launch, padded
from ..tiles.evaluator import Evaluator
from ..tiles.grid import start_rows
from ..tiles.key_blocks import integer
from .decay import Pairs, place_rows
from .defaults import LIGHT, recurrence_launch
from .held import held_blocks
from .loop import spread, store_first, store_last
from .row_terms import with_cheap_rows
from .segment import rows_of_segment

# Elements of a state, over a block of rows, that a program holds; rows of a block.
_HELD = 2048
_ROWS = (16, 64)
# Of states that are vectors, on a GPU: a channel for each lane of one warp, which waits for no
# other, and as many rows as stay in a lane's registers while the next ones are on their way.
_LANES = THREADS_PER_WARP
_ROWS_OF_LANES = 8
_ONE_WARP: Launch = (("num_warps", 1), ("num_stages", 1))


def scan(task: ScanTask, context: Context) -> Program:
    """The tile program of affine states, as many rows at a time as registers hold."""
    if lanes := _lanes(task, context):
        cheap, context = with_cheap_rows(task, context.with_blocks(lanes))
        made = by_blocks(cheap, context, in_lanes=True)
        return replace(made, launch=context.launch(_ONE_WARP))
    made = by_blocks(task, context.with_blocks(_blocks(task, context)))
    return replace(made, launch=context.launch(recurrence_launch(made, context.target)))


def _lanes(task: ScanTask, context: Context) -> dict[str, int]:
    """Blocks for one warp, where lanes have all that a row has and reads of their places; nothing
    elsewhere (a row's sums, or its states, would be made for each part of an axis), and on a
    CPU."""
    if isinstance(context.target, CpuTarget):
        return {}
    rest = task.places_of_a_channel(context.sizes, context.heads)
    if rest is None or rest > PLACES:
        return {}
    (tiled,) = task.tiled
    channels = padded(context.sizes.get(tiled, _LANES), 16)
    block = _LANES if rest == 1 else 1 << (PLACES // rest).bit_length() - 1
    return {task.over: _ROWS_OF_LANES, tiled: min(channels, block)}


def _blocks(task: ScanTask, context: Context) -> dict[str, int]:
    """Rows of a block, and what a program takes of an axis that states keep to themselves."""
    blocks = held_blocks(task, context, _HELD // _ROWS[0], least=4)
    rows = _HELD
    for dim in {d for state in task.states for d in state.dims}:
        rows //= blocks.get(dim, padded(context.sizes.get(dim, 1)))
    return {task.over: max(_ROWS[0], min(_ROWS[1], rows)), **blocks}


def by_blocks(task: ScanTask, context: Context, in_lanes: bool = False) -> Program:
    """The tile program of a scan, with the context's blocks.

    ``in_lanes``: a lane has all rows of a block. Then whole blocks go in a walk of their own, where
    no row is asked whether it exists; and what a block starts from goes into its first row, so that
    one operation is left of a row's map.
    """
    rows = task.over
    evaluator = start_rows(task.name, context, task.positions, task.tiled, task.writes)
    builder = evaluator.builder
    builder.tiles[rows] = Tile(rows, context.blocks.get(rows, 64))
    first, end = rows_of_segment(evaluator, rows, task.segment)
    states = [spread(evaluator, s, s.initial) for s in task.states]
    runs = [(first, end, False)]
    if in_lanes:
        between = _end_of_whole_blocks(evaluator, rows, first, end)
        runs = [(first, between, True), (between, end, False)]
    begin, step = f"{rows.lower()}_start", builder.tiles[rows].symbol
    names = [state.name for state in task.states]
    for start, stop, whole in runs:
        with builder.loop(begin, start, stop, step, [*zip(names, states, strict=True)]) as loop:
            place, back = loop.variable, task.reverse
            number = place_rows(evaluator, rows, rows, place, back, rows.lower(), whole)
            block = Pairs(evaluator, rows, rows, rows, number, number, place, back)
            made = _Block(evaluator, task, block, in_lanes, whole)
            loop.yields = made.run(dict(zip(names, loop.carried, strict=True)))
        states = [*loop.results]
    store_last(evaluator, task.states, states)
    return builder.finish(context.launch(LIGHT), task.about)


def _end_of_whole_blocks(evaluator: Evaluator, rows: str, first: Value, end: Value) -> Value:
    """The last row that ends a whole block of those from ``first`` on, or ``first``."""
    block = evaluator.builder.block(rows)
    zero = evaluator.builder.constant(0, DType.INT32)
    count = integer(evaluator, "max", integer(evaluator, "sub", end, first), zero)
    count = integer(evaluator, "floordiv", count, block)
    name = f"whole_{rows.lower()}"
    past = integer(evaluator, "mul", count, block, hint=name)
    return integer(evaluator, "add", first, past, hint=name)


@dataclass
class _Block:
    """One block of rows: every state in each of them, then the block's own rows.

    ``in_lanes``: as for ``by_blocks``; ``whole``: all its rows exist.
    """

    evaluator: Evaluator
    task: ScanTask
    rows: Pairs
    in_lanes: bool
    whole: bool

    def run(self, carried: Mapping[str, Value]) -> tuple[Value, ...]:
        """What the states have become; the block's own rows are stored."""
        builder, made = self.evaluator.builder, dict[str, Value]()
        every, read_before = {self.task.over}, self.task.read_before
        known: dict[tuple[tuple[Expr | None, ...], ...], Entries] = {}
        for form in self.task.forms:
            names = [state.name for state in form.states]
            start = [carried[name] for name in names]
            builder.comment(f"{', '.join(names)} in every row of the block")
            maps, rows = _Maps(self.evaluator, form, self.rows), [f"{name}_rows" for name in names]
            if any(form.offsets) or form.coefficients not in known:
                from_start = self.in_lanes and any(form.offsets)
                found, offsets = maps.scanned(start, from_start)
                known[form.coefficients] = found
            else:
                from_start, offsets = False, None
            if offsets is not None and from_start:
                after = offsets
            else:
                found = known[form.coefficients]
                after = _applied(self.evaluator, form, found, offsets, start, rows)
            for state, value in zip(form.states, after, strict=True):
                builder.bind(after_row(state, state.dims | every), value, here=True)
                made[state.name] = self._in_last_row(value)
            for state, value, first in zip(form.states, after, start, strict=True):
                if state.name in read_before:
                    above = self._above(value, first)
                    builder.bind(before_row(state, state.dims | every), above, here=True)
        apart = () if self.task.segment is None else (self.task.segment,)
        for name, own in self.task.own:
            store_first(self.evaluator, name, self.evaluator.evaluate(own, name), apart=apart)
        return tuple(made[state.name] for state in self.task.states)

    def _in_last_row(self, value: Value) -> Value:
        if not self.whole:
            return self.rows.in_last_row(value)
        builder, rows = self.evaluator.builder, self.rows
        one = builder.constant(1, DType.INT32)
        last = integer(self.evaluator, "sub", builder.block(rows.rows), one)
        here = rows.compare("eq", rows.place(), last)
        zero = builder.constant(0.0, DType.FLOAT32)
        return builder.reduce("sum", self.evaluator.where(here, value, zero), rows.rows)

    def _above(self, value: Value, first: Value) -> Value:
        """The value in the row above each row, ``first`` in the block's first.

        It takes a scan too: of two stretches of rows, the last row but one is the right one's, or
        the left one's last where the right one is a single row.
        """
        builder, rows = self.evaluator.builder, self.task.over
        one = builder.constant(1.0, DType.FLOAT32, value.axes)

        def together(left: tuple[Value, ...], right: tuple[Value, ...]) -> list[Value]:
            several = builder.elementwise("gt", right[2], one, dtype=DType.BOOL)
            before = self.evaluator.where(several, right[0], left[1])
            count = builder.elementwise("add", left[2], right[2], dtype=DType.FLOAT32)
            return [before, right[1], count]

        hints = ("above", "here", "rows")
        above = builder.combine([value, value, one], rows, together, hints=hints)[0]
        later = self.rows.compare("gt", self.rows.row_number, self.rows.start)
        return self.evaluator.where(later, above, first)


Entries = dict[tuple[int, int], Value]  # of a matrix over a semiring, by place


@dataclass
class _Maps:
    """The maps of single rows, and their scan."""

    evaluator: Evaluator
    form: Affine
    rows: Pairs

    def scanned(
        self, start: Sequence[Value], from_start: bool = False
    ) -> tuple[Entries, list[Value]]:
        """(A, b) from the block's start to each row: A by place, b whole. ``from_start``: with b
        what becomes of the start, not of nothing."""
        builder, form = self.evaluator.builder, self.form
        axes = frozenset({self.rows.rows}).union(*(v.axes for v in start))
        places = form.places
        xs = [self._entry(form.coefficients[i][j], i == j, axes) for i, j in places]
        xs += [self._offset(offset, axes) for offset in form.offsets]
        if from_start:
            xs[len(places) :] = self._from(start, xs)
        hints = [f"a{i}{j}" if len(form.states) > 1 else "a" for i, j in places]
        hints += [f"{state.name}_b" for state in form.states]

        def together(left: tuple[Value, ...], right: tuple[Value, ...]) -> list[Value]:
            first, second = (dict(zip(places, side, strict=False)) for side in (left, right))
            offsets = left[len(places) :], right[len(places) :]
            products = product(self.evaluator, form, second, first)
            moved = _applied(self.evaluator, form, second, list(offsets[1]), list(offsets[0]))
            return [*(products[place] for place in places), *moved]

        made = builder.combine(xs, self.rows.rows, together, hints=hints)
        return dict(zip(places, made, strict=False)), list(made[len(places) :])

    def _from(self, start: Sequence[Value], xs: Sequence[Value]) -> list[Value]:
        """The offsets, with what the first row makes of ``start`` in its own."""
        evaluator, places = self.evaluator, self.form.places
        entries, offsets = dict(zip(places, xs, strict=False)), xs[len(places) :]
        zero = evaluator.builder.constant(0, DType.INT32)
        first = self.rows.compare("eq", self.rows.place(), zero)
        moved = _applied(evaluator, self.form, entries, offsets, start)
        return [evaluator.where(first, m, b) for m, b in zip(moved, offsets, strict=True)]

    def _entry(self, value: Expr | None, diagonal: bool, axes: frozenset[str]) -> Value:
        """A coefficient in each row; past the last row, the one that changes nothing."""
        form = self.form
        outside = NEUTRAL[form.times] if diagonal else NEUTRAL[form.plus]
        inside = NEUTRAL[form.plus] if value is None else value
        return self._row(inside, outside, axes)

    def _offset(self, value: Expr | None, axes: frozenset[str]) -> Value:
        none = NEUTRAL[self.form.plus]
        return self._row(none if value is None else value, none, axes)

    def _row(self, value: Expr | float, outside: float, axes: frozenset[str]) -> Value:
        evaluator, builder, rows = self.evaluator, self.evaluator.builder, self.rows
        number = builder.constant(outside, DType.FLOAT32, axes)
        if not isinstance(value, Expr):
            return number if value == outside else self._constant(value, number)
        inside, made = builder.bound(rows.rows), evaluator.real(value)
        if inside is None:
            return evaluator.spread(made, axes)
        return evaluator.where(inside, made, number)

    def _constant(self, value: float, outside: Value) -> Value:
        builder = self.evaluator.builder
        inside = builder.bound(self.rows.rows)
        if inside is None:
            return builder.constant(value, DType.FLOAT32, outside.axes)
        return self.evaluator.where(inside, builder.constant(value, DType.FLOAT32), outside)


def product(evaluator: Evaluator, form: Affine, a: Entries, b: Entries) -> Entries:
    """The product of two matrices over the form's semiring."""
    made: Entries = {}
    for (i, j), left in a.items():
        for (j2, k), right in b.items():
            if j != j2:
                continue
            term = _op(evaluator, form.times, left, right)
            known = made.get((i, k))
            made[i, k] = term if known is None else _op(evaluator, form.plus, known, term)
    return made


def _applied(
    evaluator: Evaluator,
    form: Affine,
    a: Entries,
    b: Sequence[Value] | None,
    states: Sequence[Value],
    hints: Sequence[str] = (),
) -> list[Value]:
    """A s + b over the form's semiring; A s alone where there is no b."""
    made: list[Value | None] = [None] * len(states) if b is None else [*b]
    for (i, j), entry in a.items():
        term, known = _op(evaluator, form.times, entry, states[j]), made[i]
        hint = hints[i] if hints else ""
        made[i] = term if known is None else _op(evaluator, form.plus, term, known, hint)
    return [value for value in made if value is not None]


def _op(evaluator: Evaluator, fn: str, a: Value, b: Value, hint: str = "") -> Value:
    return evaluator.builder.elementwise(fn, a, b, dtype=DType.FLOAT32, hint=hint)
