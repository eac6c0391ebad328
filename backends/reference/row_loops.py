"""Rows of a loop on the host, in the memory that tile programs are executed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping

import torch
from torch import Tensor

from ...ir.errors import VerificationError
from ...ir.plan import Plan
from ...ir.row_loop import RowLoop
from .tile_memory import Memory, allocate


def rows_of(
    loop: RowLoop,
    plan: Plan,
    memory: MutableMapping[str, Memory],
    sizes: Mapping[str, int],
    dtype: torch.dtype,
) -> Iterator[dict[str, Memory]]:
    """The memory of each row in turn; what the kernels of a row have left there is taken over.

    Raises VerificationError where they leave elements of a state or of a result unwritten.
    """
    states = {state: memory[state.start] for state in loop.states}
    places, made = range(sizes[loop.over]), sorted(_made_in_rows(loop, plan))
    for place in reversed(places) if loop.reverse else places:
        row = {state.before: held for state, held in states.items()}
        row |= {view: _row(memory[whole], view, loop, plan, place) for view, whole in loop.rows}
        for name in loop.filled:
            row[name] = allocate(plan, plan.buffer(name), {}, sizes, dtype)
        yield row
        for name in sorted(loop.filled):
            if not row[name].is_whole():
                raise VerificationError(f"row {place} of {loop.over} leaves parts of {name} open")
        for view, whole in loop.made:
            _put(row[view], memory[whole], loop, place)
        states = {state: row[state.after] for state in loop.states}
        for name in made:
            memory[name] = allocate(plan, plan.buffer(name), {}, sizes, dtype)
    for state, held in states.items():
        memory[state.end] = held


def _made_in_rows(loop: RowLoop, plan: Plan) -> set[str]:
    """The buffers that the kernels of a row fill."""
    places = dict(plan.stretches)[loop]
    kernels = plan.kernels[places.start : places.stop]
    return {name for kernel in kernels for name in kernel.writes} - loop.filled


def _select(flat: Tensor, of: Memory, loop: RowLoop, place: int) -> Tensor:
    return flat.view(of.shape).select(of.buffer.dims.index(loop.over), place)


def _row(whole: Memory, view: str, loop: RowLoop, plan: Plan, place: int) -> Memory:
    data = _select(whole.data, whole, loop, place)
    writer = whole.writer
    if writer is not None:
        writer = _select(writer, whole, loop, place).reshape(-1)
    return Memory(plan.buffer(view), tuple(data.shape), data.reshape(-1), writer)


def _put(row: Memory, whole: Memory, loop: RowLoop, place: int) -> None:
    assert row.writer is not None
    assert whole.writer is not None
    for own, flat in ((row.data, whole.data), (row.writer, whole.writer)):
        target = _select(flat, whole, loop, place)
        target.copy_(own.view(target.shape))


__all__ = ["rows_of"]
