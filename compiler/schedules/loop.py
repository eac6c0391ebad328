"""The loop schedule: a recurrence row by row, its states held on chip from the first to the last.

It computes any step. Programs take the batch, the heads, and a block of one axis along which the
step keeps every position to itself; an axis that the step sums over or mixes is held whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...ir.expression import Expr, Kind
from ...ir.recurrence_tasks import Carrying, LoopTask
from ...ir.single_assignment import Repeated, Version
from ...ir.tile import DType, Program, Value
from ..tiles.builder import KIND_DTYPE
from ..tiles.context import Context
from ..tiles.evaluator import Evaluator
from ..tiles.grid import first_of, from_end, start_rows, store_result
from ..tiles.scope import Loop
from .batch_rows import by_products
from .chosen_rows import with_chosen_rows
from .defaults import LIGHT, recurrence_launch
from .held import held_blocks

# Elements of a state that a program holds: registers of four warps.
_HELD = 4096


def loop(task: LoopTask, context: Context) -> Program:
    """The tile program of a recurrence, one row after another."""
    made = by_products(task, context, row_by_row)
    if made is None:
        blocks = held_blocks(task, context, _HELD)
        made = row_by_row(task, context.with_blocks(blocks))
    return replace(made, launch=context.launch(recurrence_launch(made, context.target)))


def row_by_row(task: LoopTask, context: Context) -> Program:
    """The tile program of a loop, with the context's blocks."""
    evaluator = start_rows(task.name, context, task.positions, task.tiled, task.writes)
    builder = evaluator.builder
    starts = [(s.name, spread(evaluator, s, s.initial)) for s in task.states]
    size, zero = evaluator.size(task.over), builder.constant(0, DType.INT32)
    task, chosen = with_chosen_rows(evaluator, task)
    with builder.loop(task.over.lower(), zero, size, 1, starts) as loop:
        for choice in chosen:
            choice.bind(evaluator, loop.variable)
        _row(evaluator, task, loop)
    store_last(evaluator, task.states, loop.results)
    return builder.finish(context.launch(LIGHT), task.about)


def _row(evaluator: Evaluator, task: LoopTask, loop: Loop) -> None:
    """What one row computes, stores and hands over."""
    builder = evaluator.builder
    row = loop.variable
    if task.reverse:
        row = from_end(evaluator, task.over, row, f"{task.over.lower()}_row")
    builder.place(task.over, row)
    for state, value in zip(task.states, loop.carried, strict=True):
        builder.bind(state.before, value)
    compute_lines(evaluator, task.lines)
    for name, own in task.own:
        store_first(evaluator, name, evaluator.evaluate(own, name))
    loop.yields = tuple(spread(evaluator, state, state.after) for state in task.states)


def compute_lines(evaluator: Evaluator, lines: Sequence[Version | Repeated]) -> None:
    """The lines of a step in order, each bound to the version that it makes."""
    for line in lines:
        match line:
            case Version(ref, name, value):
                dtype = KIND_DTYPE[ref.kind]
                made = evaluator.builder.cast(evaluator.evaluate(value, name), dtype)
                evaluator.builder.bind(ref, made, here=True)
            case Repeated():
                _rounds(evaluator, line)


def _rounds(evaluator: Evaluator, rounds: Repeated) -> None:
    """An inner loop, its states carried from round to round."""
    builder = evaluator.builder
    carried = []
    for state in rounds.states:
        name = state.after.called
        value = evaluator.evaluate(state.before, name)
        carried.append((name, _with_axes(evaluator, value, state.start.dims, state.start.kind)))
    zero, size = builder.constant(0, DType.INT32), evaluator.size(rounds.over)
    with builder.loop(rounds.over.lower(), zero, size, 1, carried) as loop:
        builder.place(rounds.over, loop.variable)
        for state, value in zip(rounds.states, loop.carried, strict=True):
            builder.bind(state.start, value)
        compute_lines(evaluator, rounds.lines)
        loop.yields = tuple(
            _with_axes(evaluator, evaluator.evaluate(s.end), s.start.dims, s.start.kind)
            for s in rounds.states
        )
    for state, value in zip(rounds.states, loop.results, strict=True):
        builder.bind(state.after, value, here=True)


def spread(evaluator: Evaluator, state: Carrying, value: Expr) -> Value:
    """The value of a state on the tile, with all of the state's axes."""
    made = evaluator.evaluate(value, state.name)
    return _with_axes(evaluator, made, state.dims, state.kind)


def _with_axes(evaluator: Evaluator, value: Value, dims: frozenset[str], kind: Kind) -> Value:
    """``value`` with all the axes that ``dims`` have on the tile, in the type of states."""
    builder, dtype = evaluator.builder, KIND_DTYPE[kind]
    axes = evaluator.tile_axes(dims)
    value = builder.cast(value, dtype)
    number = builder.constant_of(value)
    if number is not None and value.axes != axes:
        return builder.constant(number, dtype, axes)
    return evaluator.spread(value, axes, value.name)


def store_last(evaluator: Evaluator, states: Sequence[Carrying], values: Sequence[Value]) -> None:
    """Write the states that the last row leaves, where they are wanted."""
    for state, value in zip(states, values, strict=True):
        if state.last is not None:
            evaluator.builder.comment(f"{state.name} after the last row")
            store_first(evaluator, state.last, value)


def store_first(
    evaluator: Evaluator,
    name: str,
    value: Value,
    where: Value | None = None,
    apart: Sequence[str] = (),
) -> None:
    """Write a result; of the programs that have the same one, the first does.

    ``apart``: dims whose positions have results of their own, though the buffer lacks the dims.
    """
    dims = (*evaluator.context.buffers[name].dims, *apart)
    store_result(evaluator, name, value, evaluator.both(first_of(evaluator, dims), where))
