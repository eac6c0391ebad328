"""Results that are copies of a walk's rows: the walk writes the result, and all read that.

    rows of a recurrence to a temporary, which is copied to an output --> rows to the output

Only where both have one dtype: a temporary in float32 keeps digits that an output would lose.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.expression import Expr, Ref
from ...ir.plan import Plan
from ...ir.recurrence_tasks import LoopTask
from ...ir.renaming import Changed
from ...ir.task import PointwiseTask, Task


def without_copies(plan: Plan) -> Plan:
    """The plan without the tasks that only copy what a walk stores in each row."""
    for task in plan.tasks:
        source = _copied(plan, task)
        if source is not None:
            plan = _without(plan, task, source, task.writes[0])
    return plan


def _copied(plan: Plan, task: Task) -> str | None:
    """The temporary of a walk's rows that a task copies, or None."""
    if type(task) is not PointwiseTask or task.beside or not isinstance(task.value, Ref):
        return None
    rows = {name for t in plan.tasks if isinstance(t, LoopTask) for name, _ in t.own}
    source, result = task.value.name, task.result
    if source not in rows or any(result in t.local for t in plan.tasks):
        return None
    made, copy = plan.buffer(source), plan.buffer(result)
    alike = {*made.dims} == {*copy.dims} and made.dtype is copy.dtype
    return source if made.role == "temporary" and alike else None


def _without(plan: Plan, copy: Task, source: str, result: str) -> Plan:
    def same(expr: Expr) -> Expr:
        return expr

    renamed = Changed(same, {source: result})
    tasks = tuple(renamed(task) for task in plan.tasks if task is not copy)
    buffers = tuple(b for b in plan.buffers if b.name != source)
    return replace(plan, tasks=tuple(_told(task) for task in tasks), buffers=buffers)


def _told(task: Task) -> Task:
    """A walk that says by its results' names what it is about."""
    if not isinstance(task, LoopTask):
        return task
    return replace(task, about=f"{', '.join(task.writes)}: row by row along {task.over}")


__all__ = ["without_copies"]
