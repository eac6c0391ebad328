"""Two attentions over the same pairs, rows and keys exchanged, as one: on CPUs.

    sums over I for blocks of J, sums over J for blocks of I --> both, for blocks of J in turn

So are the gradients of keys and values, and those of queries: weights are made once instead of
twice, and five products do the work of seven. The price is that a program takes all rows of its
heads, one block after another: on a GPU, where a head is to fill many units, that is no bargain.
Sums that grow in memory are float32; a result in 16 bits is rounded once, by a kernel of its own.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.expression import Kind, Literal, Ref
from ...ir.names import free_name
from ...ir.normaliser import Plain
from ...ir.plan import Plan
from ...ir.targets import CpuTarget
from ...ir.task import (
    AttentionTask,
    ListedKeysTask,
    ListedTask,
    PointwiseTask,
    Task,
    buffers_of,
)
from ...ir.tile import DType
from ..analysis.conditions import conditions_of
from .row_sums import row_sums, rows_apart, with_rows


def merge_sweeps(plan: Plan) -> Plan:
    """Every two attentions that may be one, at the place of the later one."""
    if not plan.one_sweep or not isinstance(plan.target, CpuTarget):
        return plan
    tasks = list(plan.tasks)
    found = []
    for second in plan.tasks:
        first = next((t for t in tasks if _may_be_one(plan, tasks, t, second)), None)
        if isinstance(first, AttentionTask) and isinstance(second, AttentionTask):
            place, (base, other) = tasks.index(second), _base_first(first, second)
            plan, grown, rounded = _in_float32(plan, other)
            merged = _merged(base, grown)
            plan, merged = _by_one_program(plan, merged)
            plan, rows = rows_apart(plan, merged, row_sums(plan, merged))
            merged = with_rows(merged, {row.value: row.result for row in rows})
            tasks[place : place + 1] = [*rows, merged, *rounded]
            tasks.remove(first)
            found.append(f"one sweep for {first.name} and {second.name}: of the same pairs")
    return replace(plan, tasks=tuple(tasks), findings=(*plan.findings, *found)) if found else plan


def _base_first(first: AttentionTask, second: AttentionTask) -> tuple[AttentionTask, AttentionTask]:
    """The task whose rows the programs go through, and that which is summed along them."""
    if isinstance(second, ListedKeysTask) and not isinstance(first, ListedKeysTask):
        return second, first
    return first, second


def _by_one_program(plan: Plan, task: AttentionTask) -> tuple[Plan, AttentionTask]:
    """The task with one list at a time for all stretches of a head."""
    if not isinstance(task, ListedKeysTask) or task.lists is None:
        return plan, task
    shares, places = task.lists.shares, task.lists.places
    buffers = tuple(
        replace(b, dims=tuple(d for d in b.dims if d != shares)) if b.name == places else b
        for b in plan.buffers
    )
    return replace(plan, buffers=buffers), replace(task, lists=replace(task.lists, shares=None))


def _merged(first: AttentionTask, second: AttentionTask) -> AttentionTask:
    values = dict.fromkeys((*first.values, *second.values))
    across = ", ".join(name for name, _ in second.outputs)
    return replace(
        first,
        values=tuple(values),
        across=second.outputs,
        about=f"{first.about}; {across}: summed along the rows",
    )


def _in_float32(plan: Plan, task: AttentionTask) -> tuple[Plan, AttentionTask, list[PointwiseTask]]:
    """The task with results that can grow in memory, and what rounds those of 16 bits."""
    outputs, rounded = [], []
    taken = {*(b.name for b in plan.buffers), *(t.name for t in plan.tasks), plan.mixer.name}
    for name, value in task.outputs:
        buffer = plan.buffer(name)
        if buffer.dtype is not DType.FLOAT32:
            sums = free_name(f"{name}_sums", taken)
            kernel = free_name(f"{task.name}_rounded", taken)
            taken |= {sums, kernel}
            grown = replace(buffer, name=sums, dtype=DType.FLOAT32, role="temporary")
            plan = replace(plan, buffers=(*plan.buffers, grown))
            whole = Ref(sums, frozenset(buffer.dims), Kind.REAL)
            reason = "what grows in memory is float32"
            about = f"{name}: {reason}"
            rows = (task.block,)
            rounded.append(PointwiseTask(kernel, name, whole, rows, about, reason))
            name = sums
        outputs.append((name, value))
    return plan, replace(task, outputs=tuple(outputs)), rounded


def _may_be_one(plan: Plan, tasks: list[Task], first: Task, second: Task) -> bool:
    """Whether the sums of ``second`` can be made where ``first`` sees the same pairs."""
    if not isinstance(first, AttentionTask) or not isinstance(second, AttentionTask):
        return False
    if first not in tasks or second not in tasks or tasks.index(first) >= tasks.index(second):
        return False
    between = tasks[tasks.index(first) + 1 : tasks.index(second) + 1]
    return (
        (first.over, first.block) == (second.block, second.over)
        and _weights(first) == _weights(second)
        and set(first.queries) - {first.block} == set(second.queries) - {second.block}
        and all(_is_simple(plan, task) for task in (first, second))
        and _go_together(first, second)
        and all(plan.buffer(name).dtype.is_float for name, _ in (*first.outputs, *second.outputs))
        and not any(buffers_of(task) & set(first.writes) for task in between)
    )


def _go_together(first: AttentionTask, second: AttentionTask) -> bool:
    """Whether both go by lists, of which one is of keys, or neither does."""
    listed = [isinstance(task, ListedTask) for task in (first, second)]
    by_keys = any(isinstance(task, ListedKeysTask) for task in (first, second))
    return (all(listed) and by_keys) or not any(listed)


def _weights(task: AttentionTask) -> object:
    mask = task.mask
    if isinstance(task, ListedTask) and task.lists is not None:
        mask = task.lists.mask
    return task.score, {*conditions_of(mask)}, task.form, task.gain


def _is_simple(plan: Plan, task: AttentionTask) -> bool:
    """Whether nothing waits for the last key, and all axes but the heads are those of the sweep, of
    any length, or whole on the tile."""
    fixed = {dim for dim, _ in plan.sizes}
    beside = (task.sink, task.lse, task.row_sum, task.row_max, task.table, task.split)
    return (
        isinstance(task.form, Plain)
        and task.form.denominator in (Literal(1), Literal(1.0))
        and not any(part is not None for part in beside)
        and not task.across
        and not fixed & {task.over, task.block}
        and fixed >= set(task.values)
    )
