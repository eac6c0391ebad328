"""Transforms along several axes in one call, where what is between them serves nothing else.

    z = x transformed along C, y = z transformed along T --> y = x transformed along C and T

The real and the imaginary part of the one have to be those of what the other transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...ir.plan import Plan
from ...ir.task import Task, TransformTask, buffers_of
from ...ir.transform import Operand, Transform, Turn


def merge_transforms(plan: Plan) -> Plan:
    """Each transform of another one's result with that one, at its own place."""
    tasks, merged = list(plan.tasks), set[str]()
    outputs = {output.name for output in plan.mixer.outputs}
    for place, task in enumerate(plan.tasks):
        if not isinstance(task, TransformTask):
            continue
        first = _before(tasks, task, outputs)
        whole = None if first is None else _merged(plan, first.transform, task.transform)
        if first is not None and whole is not None:
            tasks[place] = TransformTask.of(task.name, whole)
            merged |= {first.name}
    if not merged:
        return plan
    gone = {name for task in tasks if task.name in merged for name in task.writes}
    return replace(
        plan,
        tasks=tuple(task for task in tasks if task.name not in merged),
        buffers=tuple(buffer for buffer in plan.buffers if buffer.name not in gone),
    )


def _before(tasks: Sequence[Task], task: TransformTask, outputs: set[str]) -> TransformTask | None:
    """The transform whose two parts a transform takes, and nothing else does."""
    if task.transform.imaginary is None:
        return None
    taken = (task.transform.real.buffer, task.transform.imaginary.buffer)
    for first in tasks:
        if isinstance(first, TransformTask):
            others = (t for t in tasks if t is not first and t is not task)
            read = outputs.union(*(buffers_of(other) for other in others))
            if first.transform.parts == taken and read.isdisjoint(taken):
                return first
    return None


def _merged(plan: Plan, first: Transform, second: Transform) -> Transform | None:
    """One transform for two along different axes; axes have the names of the second."""
    if second.imaginary is None:
        return None
    buffers = {buffer.name: buffer for buffer in plan.buffers}
    real, imaginary = (
        dict(zip(buffers[operand.buffer].dims, operand.dims, strict=True))
        for operand in (second.real, second.imaginary)
    )
    overs = {turn.over for turn in first.turns}
    kept = {real[dim] for dim in first.real.dims if dim not in overs}
    later = {turn.over for turn in second.turns}
    rows = {turn.row for turn in second.turns}
    turns = tuple(Turn(turn.over, real[turn.row], turn.sign) for turn in first.turns)
    if real != imaginary or not later <= kept or kept & overs:
        return None
    if rows & {turn.row for turn in turns}:
        return None

    def renamed(operand: Operand) -> Operand:
        dims = (dim if dim in overs else real[dim] for dim in operand.dims)
        return Operand(operand.buffer, tuple(dims))

    return Transform(
        renamed(first.real),
        None if first.imaginary is None else renamed(first.imaginary),
        (*turns, *second.turns),
        second.parts,
    )


__all__ = ["merge_transforms"]
