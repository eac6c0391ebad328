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

from collections.abc import Iterator
from dataclasses import replace

from ...ir.expression import Literal
from ...ir.names import free_name
from ...ir.recurrence_forms import Coupled, Matrix
from ...ir.recurrence_tasks import ChunkTask
from ...ir.targets import Target
from ...ir.task import buffers_of
from ...ir.tile import DType, Program, Tile, Value
from ..tiles.context import Context, Launch
from ..tiles.evaluator import Evaluator
from ..tiles.grid import start_rows
from .chosen_rows import with_chosen_rows
from .chunk_states import ChunkStates
from .coupled import CoupledDecay
from .decay import Factors, NoDecay, Pairs, Transfer, place_rows
from .defaults import chunk_choices, chunk_rows, halved_choices, whole_choices
from .estimates import holds
from .halves import Halves
from .held import held_blocks
from .log_decay import Logarithms
from .loop import spread, store_first, store_last
from .segment import rows_of_segment


def chunk(task: ChunkTask, context: Context) -> Program:
    """The tile program of matrix states, chunk by chunk, with as many columns as registers hold."""
    largest = max(context.sizes.get(d, 64) for d in task.listed)
    by_entry = [
        form for form, _ in task.states if any(form.key_axis in e.axes for e in form.decays)
    ]
    several = len(task.carrying) > 1
    rows = chunk_rows(bool(by_entry), task.corrected, several, largest)
    if context.wide and largest > 64 and any(wide_rows(task, context)):
        rows = 16
    if context.wide and not task.tiled:
        choices = whole_choices()
    elif by_entry and all(in_halves(form, context) for form in by_entry):
        choices = halved_choices(largest, task.corrected, context.wide)
    else:
        reads = bool(task.readings) or task.corrected or task.segment is None
        wide = reads and _hold_much(task, context)
        wide = wide or bool(by_entry) or not context.dtype.is_narrow
        choices = chunk_choices(rows, largest, wide, reads)
    made: Program | None = None
    for held, launch, room in choices:
        blocks = {task.over: rows, **held_blocks(task, context, held)}
        made = by_chunks(task, context.with_blocks(blocks), launch)
        if holds(made, room, context.target):
            break
    assert made is not None
    return made


def _hold_much(task: ChunkTask, context: Context) -> bool:
    """Whether several states take registers: a sum of keys is a vector beside a matrix, and takes
    none to speak of but where factors of products are in registers too."""
    target = context.target
    if isinstance(target, Target) and not target.products_from_shared:
        return len(task.carrying) > 1
    return sum({*task.tiled} <= state.dims for state in task.carrying) > 1


def wide_rows(task: ChunkTask, context: Context) -> Iterator[str]:
    """The buffers of channels by rows that a kernel loads in float32: twice the addresses."""
    for name in buffers_of(task) - {*task.writes}:
        buffer = context.buffers[name]
        channels = context.features.intersection(buffer.dims)
        if buffer.dtype is DType.FLOAT32 and task.over in buffer.dims and channels:
            yield name


def by_chunks(task: ChunkTask, context: Context, launch: Launch) -> Program:
    """The tile program of matrix states, with the context's blocks."""
    if task.size is not None:
        context = replace(context, derived={task.over: task.size})
    rows = task.over
    columns, row = twins(context, rows)
    same = context.equal.get(rows, rows)
    context = replace(context, equal={**context.equal, columns: same, row: same})
    carrying = task.carrying
    evaluator = start_rows(task.name, context, task.positions, task.tiled, task.writes)
    builder = evaluator.builder
    block = context.blocks.get(rows, 64)
    builder.tiles[rows] = Tile(rows, block)
    builder.tiles[columns] = Tile(columns, block, like=rows)
    first, end = rows_of_segment(evaluator, task.over, task.segment)
    task, chosen = with_chosen_rows(evaluator, task)
    starts = [(c.name, spread(evaluator, c, c.initial)) for c in carrying]
    begin, step = f"{rows.lower()}_start", builder.tiles[rows].symbol
    with builder.loop(begin, first, end, step, starts) as loop:
        pairs = place_pairs(evaluator, loop.variable, (rows, columns, row), task.reverse)
        for choice in chosen:
            choice.bind(evaluator, loop.variable)
        for dim, place in task.parts:
            exists = builder.bound(rows)
            builder.place(dim, evaluator.integer(place, dim.lower()), exists)
        loop.yields = _one_chunk(evaluator, task, pairs, loop.carried)
    store_last(evaluator, carrying, loop.results)
    return builder.finish(context.launch(launch), task.about)


def twins(context: Context, rows: str) -> tuple[str, str]:
    """Names for the rows of a chunk as columns, and for one of them: no dims of the spec."""
    taken = {dim for buffer in context.buffers.values() for dim in buffer.dims}
    columns = free_name(f"{rows}_2", taken)
    return columns, free_name(f"{rows}_3", taken | {columns})


def place_pairs(
    evaluator: Evaluator, start: Value, dims: tuple[str, str, str], reverse: bool
) -> Pairs:
    """Put the rows of a chunk on the tile twice, as rows and as columns."""
    rows, columns, one = dims
    row = place_rows(evaluator, rows, rows, start, reverse, rows.lower())
    column = place_rows(evaluator, rows, columns, start, reverse, rows.lower())
    return Pairs(evaluator, rows, columns, one, row, column, start, reverse)


def in_halves(form: Matrix | Coupled, context: Context) -> bool:
    """Whether decays by entry are applied half by half: on tensor cores, by their logarithms."""
    logarithm = isinstance(form, Matrix) and form.log_decay is not None
    return logarithm and context.dtype.is_narrow and isinstance(context.target, Target)


def transfer_of(pairs: Pairs, form: Matrix | Coupled) -> Transfer:
    """What is left of states after some rows, by logarithms where known and exact enough."""
    if isinstance(form, Coupled):
        return CoupledDecay(pairs, form)
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


def _one_chunk(
    evaluator: Evaluator, task: ChunkTask, pairs: Pairs, carried: tuple[Value, ...]
) -> tuple[Value, ...]:
    """What the states have become, every reading bound on the way; the chunk's rows are stored."""
    made: list[Value] = []
    for form, carrying in task.states:
        starts = carried[len(made) : len(made) + len(carrying)]
        names = [state.name for state in form.states]
        read = tuple(r for r in task.readings if r.state in names)
        transfer = transfer_of(pairs, form)
        made += ChunkStates(transfer, form, carrying, starts, read).run()
    apart = () if task.segment is None else (task.segment,)
    for name, own, where in task.own:
        value = evaluator.evaluate(own, name)
        rows = None if where is None else evaluator.condition(where)
        store_first(evaluator, name, value, rows, apart)
    return tuple(made)
