"""The chunk schedule: matrix states a stretch of rows at a time, by products of matrices.

With P(t, s) the product of the decays after row s up to row t, a chunk that starts from the state
S0 reads what it wrote itself through the pairs A_xy(t, s) = sum over d of x_t y_s P(t, s), and
what came before through S0:

    R  = (1 - A_wu)^-1 (P(t) w S0 + A_wk V)     the rows' corrections: a triangular solve
    O  = P(t) q S0 + A_qu R + A_qk V
    S1 = P S0 + (u P(end, s))^T R + (k P(end, s))^T V

Decays are multiplied, never divided: a decay of 0, and one of exp(-30) for a hundred rows, lose
nothing (Yang et al. 2024, arXiv 2312.06635, 2406.06484). Scalars whose logarithms are known are
differences of running sums where 16 bits hide what these lose (``log_decay``), and by entry they
are sums of the rows between two, half by half (``halves``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.expression import Expr, Kind, Literal, Ref
from ...ir.promises import CommonBlocks
from ...ir.recurrence_forms import Coupled, Matrix, Reading
from ...ir.recurrence_tasks import Carrying, ChunkTask
from ...ir.targets import Target
from ...ir.tile import DType, GridAxis, Program, SizeArgument, Tile, Value
from ..tiles.context import Context, Launch
from ..tiles.contraction import contract, factors_of
from ..tiles.evaluator import Evaluator
from ..tiles.grid import start_rows
from ..tiles.key_blocks import integer
from .coupled import CoupledChunk
from .decay import Decay, Factors, NoDecay, Pairs, Request, pair_name, place_rows, symbol
from .defaults import chunk_choices, chunk_rows, halved_choices
from .estimates import has_room, registers
from .halves import Halves
from .held import held_blocks
from .log_decay import Logarithms
from .loop import spread, store_first, store_last


def chunk(task: ChunkTask, context: Context) -> Program:
    """The tile program of matrix states, chunk by chunk, with as many columns as registers hold."""
    largest = max(context.sizes.get(d, 64) for d in task.listed)
    by_entry = [
        form for form, _ in task.states if any(form.key_axis in e.axes for e in form.decays)
    ]
    several = len(task.carrying) > 1
    rows = chunk_rows(bool(by_entry), task.corrected, several, largest)
    if by_entry and all(in_halves(form, context) for form in by_entry):
        choices = halved_choices(largest, task.corrected)
    else:
        wide = several or bool(by_entry) or not context.dtype.is_narrow
        choices = chunk_choices(rows, largest, wide)
    made: Program | None = None
    for held, launch, room in choices:
        blocks = {task.over: rows, **held_blocks(task, context, held)}
        made = by_chunks(task, context.with_blocks(blocks), launch)
        if registers(made) <= room and has_room(made, context.target):
            break
    assert made is not None
    return made


def by_chunks(task: ChunkTask, context: Context, launch: Launch) -> Program:
    """The tile program of matrix states, with the context's blocks."""
    if task.size is not None:
        context = replace(context, derived={task.over: task.size})
    rows, columns, row = task.over, f"{task.over}_2", f"{task.over}_3"
    same = context.equal.get(rows, rows)
    context = replace(context, equal={**context.equal, columns: same, row: same})
    carrying = task.carrying
    evaluator = start_rows(task.name, context, task.positions, task.tiled, task.writes)
    builder = evaluator.builder
    block = context.blocks.get(rows, 64)
    builder.tiles[rows] = Tile(rows, block)
    builder.tiles[columns] = Tile(columns, block, like=rows)
    first, end = _segment(evaluator, task)
    starts = [(c.name, spread(evaluator, c, c.initial)) for c in carrying]
    begin, step = f"{rows.lower()}_start", builder.tiles[rows].symbol
    with builder.loop(begin, first, end, step, starts) as loop:
        pairs = place_pairs(evaluator, loop.variable, rows, task.reverse)
        for dim, place in task.parts:
            exists = builder.bound(rows)
            builder.place(dim, evaluator.integer(place, dim.lower()), exists)
        made = _Chunk(evaluator, task, pairs)
        loop.yields = made.run(loop.carried)
    store_last(evaluator, carrying, loop.results)
    return builder.finish(context.launch(launch), task.about)


def _segment(evaluator: Evaluator, task: ChunkTask) -> tuple[Value, Value]:
    """The rows that a program takes: from a first one to before another."""
    builder, size = evaluator.builder, evaluator.size(task.over)
    zero = builder.constant(0, DType.INT32)
    if task.segment is None:
        return zero, size
    position = builder.grid_position(task.segment, f"{task.over.lower()}_segment")
    builder.grid.append(GridAxis(task.segment, position))
    builder.place(task.segment, position)
    builder.promises.add(CommonBlocks(task.over, task.segment))
    block, one = builder.block(task.over), builder.constant(1, DType.INT32)

    def blocks(value: Value, of: Value) -> Value:
        filled = integer(evaluator, "add", value, integer(evaluator, "sub", of, one))
        return integer(evaluator, "floordiv", filled, of)

    count = builder.scalar(SizeArgument(task.segment))
    rows = blocks(blocks(size, block), count)
    rows = integer(evaluator, "mul", rows, block, hint="segment_rows")
    first = integer(evaluator, "mul", position, rows, hint="first_row")
    end = integer(evaluator, "min", integer(evaluator, "add", first, rows), size, hint="end_row")
    return first, end


def place_pairs(evaluator: Evaluator, start: Value, rows: str, reverse: bool) -> Pairs:
    """Put the rows of a chunk on the tile twice, as rows and as columns."""
    columns, name = f"{rows}_2", rows.lower()
    row = place_rows(evaluator, rows, rows, start, reverse, name)
    column = place_rows(evaluator, rows, columns, start, reverse, name)
    return Pairs(evaluator, rows, columns, f"{rows}_3", row, column, start, reverse)


def in_halves(form: Matrix | Coupled, context: Context) -> bool:
    """Whether decays by entry are applied half by half: on tensor cores, by their logarithms.

    Not beside a triangle of more than 64 entries where tensor cores take factors from registers:
    kilobytes of these are spilled there.
    """
    target = context.target
    if not isinstance(form, Matrix) or form.log_decay is None or not isinstance(target, Target):
        return False
    held = not form.corrections or context.sizes.get(form.key_axis, 64) <= 64
    return context.dtype.is_narrow and (held or target.products_from_shared)


def decay_of(pairs: Pairs, form: Matrix) -> Decay:
    """The decay of a state in each row, by logarithms where they are known and exact enough."""
    if isinstance(form.decay, Literal) and form.decay.value == 1:
        return NoDecay(pairs, form.key_axis)
    context, log = pairs.evaluator.context, form.log_decay
    if log is None or not context.dtype.is_narrow:
        return Factors(pairs, form.key_axis, form.decay)
    if form.key_axis not in log.axes:
        return Logarithms(pairs, form.key_axis, log)
    if in_halves(form, context):
        return Halves(pairs, form.key_axis, log)
    return Factors(pairs, form.key_axis, form.decay)


@dataclass
class _Chunk:
    """One chunk: the states after it, with every reading bound on the way."""

    evaluator: Evaluator
    task: ChunkTask
    pairs: Pairs

    def run(self, carried: tuple[Value, ...]) -> tuple[Value, ...]:
        """What the states have become; the chunk's own rows are stored."""
        task, builder = self.task, self.evaluator.builder
        made: list[Value] = []
        for form, carrying in task.states:
            starts = carried[len(made) : len(made) + len(carrying)]
            if isinstance(form, Coupled):
                names = [state.name for state in form.states]
                read = tuple(r for r in task.readings if r.state in names)
                made += CoupledChunk(self.pairs, form, carrying, starts, read).run()
            else:
                builder.bind(carrying[0].before, starts[0])
                made.append(self._state(form, carrying[0], starts[0]))
        apart = () if task.segment is None else (task.segment,)
        for name, own, where in task.own:
            value = self.evaluator.evaluate(own, name)
            rows = None if where is None else self.evaluator.condition(where)
            store_first(self.evaluator, name, value, rows, apart)
        return tuple(made)

    def _state(self, form: Matrix, carrying: Carrying, start: Value) -> Value:
        """Readings of one state, bound; then the state after the chunk."""
        builder = self.evaluator.builder
        decay = decay_of(self.pairs, form)
        read = [r for r in self.task.readings if r.state == form.state.name]
        wanted = self._wanted(form, [r for r in read if r.axes == (form.key_axis,)])
        solved = {w for _, w in form.corrections}
        now = [r for r in wanted if decay.by_columns or r[0] in solved]
        scores = dict(zip(now, decay.scores(now), strict=True))
        terms = list(form.writes)
        if form.corrections:
            builder.comment(f"{carrying.name}: what the rows correct, all of the chunk at once")
            terms = self._corrected(form, carrying, decay, scores)
        later = [r for r in wanted if r not in scores]  # what is solved for needs the registers
        scores |= zip(later, decay.scores(later), strict=True)
        for reading in read:
            builder.comment(f"{carrying.name} read")
            if reading.axes == (form.key_axis,):
                value = self._from_start(reading.query, carrying, decay, reading.after)
                for key, entry in terms:
                    pair = scores[reading.query, key, reading.after]
                    value = self._through(pair, entry, value)
            else:
                value = self._along_axis(reading, terms, carrying, decay)
            builder.bind(reading.ref, value, here=True)
        builder.comment(f"{carrying.name} after the chunk")
        return self._after(carrying, terms, decay, start)

    def _wanted(self, form: Matrix, read: list[Reading]) -> dict[Request, None]:
        """The pairs that the chunk needs."""
        keys = [k for k, _ in form.writes] + [u for u, _ in form.corrections]
        left = [(r.query, r.after) for r in read] + [(w, False) for _, w in form.corrections]
        return {(x, y, after): None for x, after in left for y in keys}

    def _corrected(
        self, form: Matrix, carrying: Carrying, decay: Decay, scores: dict[Request, Value]
    ) -> list[tuple[Expr, Expr]]:
        """The writes of the chunk with its corrections solved for.

        Where a row writes its correction to the key that it writes a value to, the two are one:
        (1 - A_wk) (V + R) = V + P(t) w S0.
        """
        builder = self.evaluator.builder
        ((u, w),) = form.corrections
        value = self._from_start(w, carrying, decay, after=False)
        others = []
        same = [entry for key, entry in form.writes if key == u]
        for key, entry in form.writes:
            if key != u:
                others.append((key, entry))
                value = self._through(scores[w, key, False], entry, value)
        for entry in same:
            written = self.evaluator.real(entry)
            value = builder.elementwise("add", written, value, dtype=DType.FLOAT32, hint="written")
        rows, columns = self.pairs.rows, self.pairs.columns
        value = self.evaluator.masked(value, rows, 0.0)
        solved = builder.substitute(scores[w, u, False], value, rows, columns, "corrections")
        ref = Ref(
            f"{carrying.name}.corrections", form.state.dims - {form.key_axis} | {rows}, Kind.REAL
        )
        builder.bind(ref, solved, here=True)
        self.evaluator.zero_outside.add(ref.name)  # as what it is solved from
        return [*others, (u, ref)]

    # --------------------------------------------------------------------------- products

    def _from_start(self, x: Expr, carrying: Carrying, decay: Decay, after: bool) -> Value:
        """What row t sees, through ``x``, of the state that the chunk started from."""
        name = f"{symbol(x, decay.axis) or 'x'}_{carrying.name}_start"
        factors = [*decay.seen_by(x, after), carrying.before]
        return contract(self.evaluator, factors, (decay.axis,), hint=name)

    def _through(self, pair: Value, entry: Expr, acc: Value) -> Value:
        """acc + the sum over the chunk's rows s of pair[t, s] * entry[s]."""
        seen = self.evaluator.named(pair)
        self.evaluator.zero_outside.add(seen.name)  # no row sees what is past the last
        factors = [seen, *factors_of(self.pairs.at_column(entry))]
        name = self.evaluator.builder.naming.stem(acc).removesuffix("_start")
        return contract(self.evaluator, factors, (self.pairs.columns,), acc=acc, hint=name)

    def _along_axis(
        self,
        reading: Reading,
        terms: list[tuple[Expr, Expr]],
        carrying: Carrying,
        decay: Decay,
    ) -> Value:
        """A reading that sums over the values' axes and keeps the one that decays differ along."""
        evaluator, builder = self.evaluator, self.evaluator.builder
        query, rows = factors_of(reading.query), decay.rows(reading.after)
        value = contract(evaluator, [*query, carrying.before], reading.axes)
        if rows is not None:
            kept = evaluator.real(rows)
            value = builder.elementwise("mul", kept, value, dtype=DType.FLOAT32)
        for key, entry in terms:
            weights = contract(
                evaluator,
                [*query, *factors_of(self.pairs.at_column(entry))],
                reading.axes,
                hint=pair_name(reading.query, entry, reading.axes[0]),
            )
            more = decay.spread(weights, key, reading.after)
            value = builder.elementwise("add", value, more, dtype=DType.FLOAT32)
        return value

    def _after(
        self, carrying: Carrying, terms: list[tuple[Expr, Expr]], decay: Decay, start: Value
    ) -> Value:
        """The state after the chunk: the start decayed, and what the rows wrote."""
        builder = self.evaluator.builder
        total = decay.total()
        value = start
        if total is not None:
            value = builder.elementwise("mul", start, total, dtype=DType.FLOAT32)
        name = f"{carrying.name}_after"
        for key, entry in terms:
            factors = [  # what is left is applied to the first: entries are the smaller tile
                *factors_of(self.pairs.at_column(entry)),
                *decay.left_of(key),
            ]
            columns = (self.pairs.columns,)
            value = contract(self.evaluator, factors, columns, acc=value, hint=name)
        return value
