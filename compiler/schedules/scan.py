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
from math import prod

from ...ir.expression import Expr
from ...ir.recurrence_forms import Affine
from ...ir.recurrence_tasks import ScanTask
from ...ir.reductions import NEUTRAL
from ...ir.single_assignment import after_row, before_row
from ...ir.targets import THREADS_PER_WARP, CpuTarget
from ...ir.tile import DType, Program, Tile, Value
from ..tiles.context import Context, Launch, padded
from ..tiles.evaluator import Evaluator
from ..tiles.grid import start_rows
from .decay import Pairs, place_rows
from .defaults import LIGHT, recurrence_launch
from .held import held_blocks, own_axes
from .loop import spread, store_first, store_last
from .segment import rows_of_segment

# Elements of a state, over a block of rows, that a program holds; rows of a block.
_HELD = 2048
_ROWS = (16, 64)
# Of states that are vectors, on a GPU: a channel for each lane of one warp, which waits for no
# other, and as many rows as stay in a lane's registers while the next ones are on their way.
_LANES = THREADS_PER_WARP
_ROWS_OF_LANES = 8
_PLACES = 2 * _LANES  # of states with more axes, which a program has whole
_MOST = 1 << 20
_ONE_WARP: Launch = (("num_warps", 1), ("num_stages", 1))


def scan(task: ScanTask, context: Context) -> Program:
    """The tile program of affine states, as many rows at a time as registers hold."""
    if lanes := _lanes(task, context):
        return replace(
            by_blocks(task, context.with_blocks(lanes)), launch=context.launch(_ONE_WARP)
        )
    made = by_blocks(task, context.with_blocks(_blocks(task, context)))
    return replace(made, launch=context.launch(recurrence_launch(made, context.target)))


def _lanes(task: ScanTask, context: Context) -> dict[str, int]:
    """Blocks for one warp, where lanes have all that a row has and reads of their places; nothing
    elsewhere (a row's sums, or its states, would be made for each part of an axis), and on a
    CPU."""
    groups, own = {group for group, _ in context.heads}, own_axes(task, context)
    summed = task.read_axes - own - {*task.positions, task.over} - groups
    shared_out = all({*task.tiled} <= state.dims for state in task.states)
    if isinstance(context.target, CpuTarget) or summed or not (task.tiled and shared_out):
        return {}
    (tiled,) = task.tiled
    rest = prod(context.sizes.get(dim, _MOST) for dim in own - {tiled})
    if rest > _PLACES:
        return {}
    channels = padded(context.sizes.get(tiled, _LANES), 16)
    block = _LANES if rest == 1 else 1 << (_PLACES // rest).bit_length() - 1
    return {task.over: _ROWS_OF_LANES, tiled: min(channels, block)}


def _blocks(task: ScanTask, context: Context) -> dict[str, int]:
    """Rows of a block, and what a program takes of an axis that states keep to themselves."""
    blocks = held_blocks(task, context, _HELD // _ROWS[0], least=4)
    rows = _HELD
    for dim in {d for state in task.states for d in state.dims}:
        rows //= blocks.get(dim, padded(context.sizes.get(dim, 1)))
    return {task.over: max(_ROWS[0], min(_ROWS[1], rows)), **blocks}


def by_blocks(task: ScanTask, context: Context) -> Program:
    """The tile program of a scan, with the context's blocks."""
    rows = task.over
    evaluator = start_rows(task.name, context, task.positions, task.tiled, task.writes)
    builder = evaluator.builder
    builder.tiles[rows] = Tile(rows, context.blocks.get(rows, 64))
    first, end = rows_of_segment(evaluator, rows, task.segment)
    starts = [(s.name, spread(evaluator, s, s.initial)) for s in task.states]
    begin, step = f"{rows.lower()}_start", builder.tiles[rows].symbol
    with builder.loop(begin, first, end, step, starts) as loop:
        number = place_rows(evaluator, rows, rows, loop.variable, task.reverse, rows.lower())
        block = Pairs(evaluator, rows, rows, rows, number, number, loop.variable, task.reverse)
        names = [state.name for state in task.states]
        loop.yields = _Block(evaluator, task, block).run(
            dict(zip(names, loop.carried, strict=True))
        )
    store_last(evaluator, task.states, loop.results)
    return builder.finish(context.launch(LIGHT), task.about)


@dataclass
class _Block:
    """One block of rows: every state in each of them, then the block's own rows."""

    evaluator: Evaluator
    task: ScanTask
    rows: Pairs

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
                found, offsets = maps.scanned(start)
                known[form.coefficients] = found
            else:
                offsets = None
            after = _applied(self.evaluator, form, known[form.coefficients], offsets, start, rows)
            for state, value in zip(form.states, after, strict=True):
                builder.bind(after_row(state, state.dims | every), value, here=True)
                made[state.name] = self.rows.in_last_row(value)
            for state, value, first in zip(form.states, after, start, strict=True):
                if state.name in read_before:
                    above = self._above(value, first)
                    builder.bind(before_row(state, state.dims | every), above, here=True)
        apart = () if self.task.segment is None else (self.task.segment,)
        for name, own in self.task.own:
            store_first(self.evaluator, name, self.evaluator.evaluate(own, name), apart=apart)
        return tuple(made[state.name] for state in self.task.states)

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

    def scanned(self, start: Sequence[Value]) -> tuple[Entries, list[Value]]:
        """(A, b) from the block's start to each row: A by place, b whole."""
        builder, form = self.evaluator.builder, self.form
        axes = frozenset({self.rows.rows}).union(*(v.axes for v in start))
        places = form.places
        xs = [self._entry(form.coefficients[i][j], i == j, axes) for i, j in places]
        xs += [self._offset(offset, axes) for offset in form.offsets]
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
        inside = builder.bound(rows.rows)
        made = evaluator.real(value)
        assert inside is not None
        return evaluator.where(inside, made, number)

    def _constant(self, value: float, outside: Value) -> Value:
        builder = self.evaluator.builder
        inside = builder.bound(self.rows.rows)
        assert inside is not None
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
