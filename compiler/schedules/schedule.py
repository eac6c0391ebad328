"""From tasks to tile programs: each by the schedule of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ...ir.plan import Kernel, Plan
from ...ir.recurrence_tasks import ChunkTask, LoopTask, ScanTask
from ...ir.roles import dim_roles
from ...ir.selection_tasks import ChoiceTask, EndsTask
from ...ir.targets import Target
from ...ir.task import (
    AttentionTask,
    BlockTableTask,
    ConvolutionTask,
    ListedKeysTask,
    ListedRowsTask,
    PointwiseTask,
    RunningSumTask,
    Task,
    TransformTask,
)
from ...ir.tile import Program
from ..analysis.choices import decisive
from ..tiles.context import Context, context_of
from .attention import attention
from .block_table import block_table
from .chunk import chunk
from .convolution import convolution
from .listed_keys import listed_keys
from .listed_rows import listed_rows
from .loop import loop
from .pointwise import pointwise, running_sum
from .scan import scan
from .selection import choice, selection
from .transform import transform

SCHEDULES: Mapping[type, Callable[[Any, Context], Program]] = {
    AttentionTask: attention,
    BlockTableTask: block_table,
    ChunkTask: chunk,
    ConvolutionTask: convolution,
    ScanTask: scan,
    ListedKeysTask: listed_keys,
    ListedRowsTask: listed_rows,
    LoopTask: loop,
    PointwiseTask: pointwise,
    RunningSumTask: running_sum,
    EndsTask: selection,
    ChoiceTask: choice,
    TransformTask: transform,
}


def schedule(task: Task, context: Context) -> Program:
    """The tile program of a task, at the blocks that its schedule starts from."""
    return SCHEDULES[type(task)](task, context)


def schedule_tasks(plan: Plan) -> Plan:
    """Every task as a tile program.

    tasks, no kernels --> a kernel for each task, in the order of the tasks
    """
    context = plan_context(plan)
    decides = decisive(plan.tasks, plan.loops) if plan.dtype.is_narrow else frozenset[str]()
    kernels = tuple(
        Kernel(
            schedule(
                task, replace(context, exact=plan.dtype.is_narrow and _is_exact(task, decides))
            ),
            task.schedule,
            task.computes,
            task.reason,
        )
        for task in plan.tasks
    )
    limits = tuple(context.ranges.limits.items())
    return replace(plan, kernels=kernels, limits=limits).with_common_blocks()


def _is_exact(task: Task, decides: frozenset[str]) -> bool:
    decisive_map = isinstance(task, PointwiseTask) and not decides.isdisjoint(task.writes)
    return decisive_map or isinstance(task, ChoiceTask)


def plan_context(plan: Plan) -> Context:
    """What schedules may take for granted: sizes, params and buffers of a plan."""
    mixer, sizes = plan.mixer, dict(plan.sizes)
    buffers = {buffer.name: buffer for buffer in plan.buffers}
    context = context_of(
        mixer,
        sizes,
        dict(plan.params),
        plan.dtype,
        buffers,
        dict(plan.lengths),
        dict(plan.integers),
    )
    return replace(
        context,
        names=dict(plan.names),
        features=dim_roles(mixer, sizes).features,
        tiling=dict(mixer.tiling),
        target=plan.target,
        wide=mixer.wide and plan.dtype.is_narrow and isinstance(plan.target, Target),
    )
