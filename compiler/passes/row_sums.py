"""Numbers of a position that a walk would sum up anew for each block of the other side, stored.

    for blocks of J: for blocks of I: sum(w * (dp - sum(d_o * o, E)))
    --> delta = sum(d_o * o, E); for blocks of J: for blocks of I: sum(w * (dp - delta))

A turn that sums up what nothing else in it reads loads a tile for one number a row: the gradients
of keys and values take the outputs for nothing but ``delta``, so that on GPUs a third of what their
turns copy, and the registers for it, are gone with it (as in Dao 2023, arXiv 2307.08691,
algorithm 2). A norm of keys stays where it is: the keys are there anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...ir.expression import Expr, Kind, Reduce, Ref
from ...ir.names import free_name, names_in
from ...ir.plan import Buffer, Plan
from ...ir.rewriting import transform, walk
from ...ir.roles import dim_roles
from ...ir.targets import CpuTarget
from ...ir.task import AttentionTask, ListedTask, PointwiseTask, Task
from ...ir.tile import DType

_REASON = "each block of the other side would compute it again"


def store_row_sums(plan: Plan) -> Plan:
    """The plan with such numbers in buffers where a turn loads a tile for them alone.

    On a CPU for listed positions alone: their tiles are brought together row by row.
    """
    if plan.loops:
        return plan
    kind = ListedTask if isinstance(plan.target, CpuTarget) else AttentionTask
    for name in [task.name for task in plan.tasks if isinstance(task, kind)]:
        plan = _stored(plan, next(t for t in plan.tasks if t.name == name))
    return plan


def _stored(plan: Plan, task: Task) -> Plan:
    """The plan with the numbers of one walk apart, for all attentions that take them."""
    assert isinstance(task, AttentionTask)
    alone = [node for node in row_sums(plan, task) if _loads_for_itself(plan, task, node)]
    if not alone:
        return plan
    plan, made = rows_apart(plan, task, alone)
    stored = {row.value: row.result for row in made}
    tasks = [with_rows(t, stored) if isinstance(t, AttentionTask) else t for t in plan.tasks]
    for row in made:  # what it is made of may stand between two of its readers
        tasks.insert(next(n for n, t in enumerate(tasks) if row.result in t.reads), row)
    found = [f"{row.result} is stored: {_REASON}" for row in made]
    return replace(plan, tasks=tuple(tasks), findings=(*plan.findings, *found))


def row_sums(plan: Plan, task: AttentionTask) -> list[Reduce]:
    """Sums over whole axes that are numbers of a position of the side that a program goes through
    again and again, the same each time."""
    side = visited(task)
    places = {*task.queries, task.over} - ({task.block, task.over} - {side})
    fixed = {dim for dim, _ in plan.sizes}
    read = [task.score, *filter(None, (task.gain,)), *(value for _, value in task.sums)]
    found = dict.fromkeys(n for expr in read for n in walk(expr) if isinstance(n, Reduce))
    return [
        node
        for node in found
        if {side} <= node.axes <= places
        and node.kind is Kind.REAL
        and {*node.over} <= fixed
        and not names_in(node) & task.local
    ]


def visited(task: AttentionTask) -> str:
    """The dim of the positions that are met again and again: those of a list, or the keys."""
    lists = task.lists if isinstance(task, ListedTask) else None
    return task.over if lists is None else lists.along


def _loads_for_itself(plan: Plan, task: AttentionTask, node: Reduce) -> bool:
    """Whether the sum takes a tile that the rest of a turn does not."""
    dims = {b.name: {*b.dims} for b in plan.buffers}
    tiles = {name for name in names_in(node) if dims.get(name, set()) & {*node.over}}
    return not tiles <= with_rows(task, {node: ""}).reads


def rows_apart(
    plan: Plan, task: AttentionTask, nodes: list[Reduce]
) -> tuple[Plan, list[PointwiseTask]]:
    """The plan with a float32 buffer for each of ``nodes``, and what fills them."""
    taken = {*(b.name for b in plan.buffers), *(t.name for t in plan.tasks), plan.mixer.name}
    roles, names = dim_roles(plan.mixer, dict(plan.sizes)), dict(plan.names)
    made, buffers = [], []
    for node in nodes:
        plain = f"{task.name.removeprefix(plan.mixer.name + '_')}_row"
        name = free_name(names.get(node, plain), taken)
        kernel = free_name(f"{plan.mixer.name}_{name}", taken)
        taken |= {name, kernel}
        about = f"{name}: {_REASON}"
        made.append(PointwiseTask(kernel, name, node, (visited(task),), about, _REASON))
        buffers.append(Buffer(name, roles.order(node.axes), DType.FLOAT32, "temporary"))
    return replace(plan, buffers=(*plan.buffers, *buffers)), made


def with_rows(task: AttentionTask, stored: Mapping[Expr, str]) -> AttentionTask:
    """The task with numbers read from the buffers where they are stored."""

    def read(node: Expr) -> Expr | None:
        return Ref(stored[node], node.axes, Kind.REAL) if node in stored else None

    def each(sums: tuple[tuple[str, Expr], ...]) -> tuple[tuple[str, Expr], ...]:
        return tuple((name, transform(value, read)) for name, value in sums)

    return replace(
        task,
        score=transform(task.score, read),
        gain=None if task.gain is None else transform(task.gain, read),
        outputs=each(task.outputs),
        across=each(task.across),
    )


__all__ = ["row_sums", "rows_apart", "store_row_sums", "with_rows"]
