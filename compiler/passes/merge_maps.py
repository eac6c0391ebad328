"""Values along the same axes as one kernel, on GPUs: what both read is read once, by one launch.

    d_q[B, T, G, D] and d_k[B, T, G, D], each tile by tile --> both, tile by tile

Only where neither waits for the other, and where programs take tiles as large for both as for each:
so none spills that did not. Values with loops over products stay apart: what a product is made of
fills a program's registers, and one loop after the other reads nothing once. On a CPU a launch
costs nothing, and values apart keep to its caches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...ir.plan import Plan
from ...ir.targets import CpuTarget
from ...ir.task import PointwiseTask, Task, buffers_of
from ...ir.tile import Dot, For, all_ops
from ..schedules.pointwise import pointwise
from ..schedules.schedule import plan_context
from ..tiles.context import Context


def merge_maps(plan: Plan) -> Plan:
    """Each task of a value with the first one before it that it may go with."""
    if isinstance(plan.target, CpuTarget):
        return plan
    context = plan_context(plan)
    tasks, stretches = list(plan.tasks), _stretches(plan)
    for task in plan.tasks:
        if type(task) is PointwiseTask:
            _merge(tasks, task, context, stretches)
    return plan if len(tasks) == len(plan.tasks) else replace(plan, tasks=tuple(tasks))


def _stretches(plan: Plan) -> dict[str, int]:
    """How many loops of the host begin and end before a task, by its name: what is apart runs
    another number of times, or sees another row."""
    ends = [end for _, places in plan.stretches for end in (places.start, places.stop)]
    return {t.name: sum(end <= place for end in ends) for place, t in enumerate(plan.tasks)}


def _merge(
    tasks: list[Task], task: PointwiseTask, context: Context, stretches: Mapping[str, int]
) -> None:
    """Put ``task`` to one that is before it, at the place of either."""
    end = tasks.index(task)
    for start, first in enumerate(tasks[:end]):
        if stretches[first.name] != stretches[task.name]:
            continue
        if type(first) is not PointwiseTask or not _same_tiles(first, task, context):
            continue
        made = {name for between in tasks[start:end] for name in between.writes}
        read = frozenset[str]().union(*(buffers_of(t) for t in tasks[start + 1 : end + 1]))
        if made & buffers_of(task) and read & {*first.writes}:
            continue
        merged = _merged(first, task)
        if _blocks(merged, context) != _blocks(first, context):
            continue
        tasks[start if not made & buffers_of(task) else end] = merged
        tasks.remove(first if first in tasks else task)
        return


def _merged(first: PointwiseTask, second: PointwiseTask) -> PointwiseTask:
    beside = (*first.beside, (second.result, second.value), *second.beside)
    about = first.about if first.reason == second.reason else f"{first.about}; {second.about}"
    if first.reason == second.reason:
        about = f"{', '.join((*first.writes, *second.writes))}: {first.reason}"
    return replace(first, beside=beside, about=about)


def _same_tiles(first: PointwiseTask, second: PointwiseTask, context: Context) -> bool:
    """Whether programs of both stand at the same places, as many of them."""
    dims = [frozenset(context.buffers[task.result].dims) for task in (first, second)]
    return (
        dims[0] == dims[1]
        and set(first.tiled) == set(second.tiled)
        and (blocks := _blocks(first, context)) is not None
        and blocks == _blocks(second, context)
    )


def _blocks(task: PointwiseTask, context: Context) -> dict[str, int] | None:
    """Positions that a program takes of each axis it shares out; None: it loops over products."""
    program = pointwise(task, context)
    loops = (op for op in program.body if isinstance(op, For))
    if any(isinstance(op, Dot) for loop in loops for op in all_ops(loop.body)):
        return None
    return {dim: program.tile(dim).block for dim in task.tiled}
