"""How much of a state a program of a recurrence holds, and the knobs of that."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ...ir.knob import Knob
from ...ir.recurrence_tasks import ChunkTask, LoopTask, ScanTask
from ..tiles.context import Context, padded
from .space import NUM_WARPS, Space

SPACE = Space(
    Knob(
        "block_channels",
        (16, 32, 64, 128),
        64,
        "a part of the state, or of a cell's batch, per program",
    ),
    Knob(
        "chunk",
        (16, 32, 64, 128),
        32,
        "rows at once, by products of matrices or a scan; between chunks the state waits",
    ),
    replace(NUM_WARPS, choices=(1, 2, 4, 8, 16)),
)
# Positions of an axis whose length nobody knows.
_ANY = 1 << 20


def held_blocks(
    task: ChunkTask | LoopTask | ScanTask, context: Context, held: int, least: int = 16
) -> dict[str, int]:
    """The block of the axis that a task's programs share out, beside the axes that they hold whole.

    Args:
        held: about how many elements of a state a program holds.
        least: the smallest block (dots take no fewer than 16).
    """
    if not task.tiled:
        return {}
    (tiled,) = task.tiled
    own = own_axes(task, context) - {tiled}
    rest = prod((context.sizes.get(d, _ANY) for d in own), start=1)
    block = max(least, min(128, held // max(rest, 1)))
    size = context.sizes.get(tiled, _ANY)
    return {tiled: min(1 << (block.bit_length() - 1), padded(size, 16))}


def own_axes(task: ChunkTask | LoopTask | ScanTask, context: Context) -> frozenset[str]:
    """The axes of states and of what rows compute that a program has tiles along, rows aside."""
    values = (value.axes for value in task.row_values)
    dims = frozenset[str]().union(*(state.dims for state in task.carrying), *values)
    groups = {group for group, heads in context.heads if heads in dims | {*task.positions}}
    return dims - groups - task.walked - {*task.positions}
