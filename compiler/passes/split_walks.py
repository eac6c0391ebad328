"""Recurrences in chunks as two kernels or three: what all chunks can do at once is apart.

    one kernel that walks the chunks --> prepare, carry and read --> prepare, carry, read

On a GPU one kernel that walks the rows and does everything is bound by its longest chain, once per
chunk. What does not depend on the state is prepared for all chunks at once: scores, decays, the
inverse of a triangle. What only reads the states may be read for all chunks at once, from the state
at each chunk's start. Which ops are which follows from what the carried value reaches, and what is
stored between kernels is a minimum cut (``program_cut``).
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.expression import Literal
from ...ir.plan import Buffer, Kernel, Plan
from ...ir.recurrence_tasks import ChunkTask
from ...ir.task import PartTask, Task
from ...ir.tile import Program
from ..schedules.parts import chunk_kernels, with_part_launch
from ..schedules.schedule import plan_context
from ..tiles.context import Context
from .walk_parts import Walk, walk_of


def split_walks(plan: Plan) -> Plan:
    """Every chunk kernel, dealt out to as many as the plan asks for, or as its target runs best."""
    chunks = [task for task in plan.tasks if isinstance(task, ChunkTask)]
    context = plan_context(plan) if chunks else None
    if context is None or all(_count(plan, task, context) < 2 for task in chunks):
        return plan
    tasks: list[Task] = []
    kernels: list[Kernel] = []
    for task, kernel in zip(plan.tasks, plan.kernels, strict=True):
        count = _count(plan, task, context) if isinstance(task, ChunkTask) else 1
        walk = _walk(plan, task, kernel.program) if count > 1 else None
        programs = () if walk is None else _programs(walk, count)
        if walk is None or len(programs) < 2:
            tasks.append(task)
            kernels.append(kernel)
            continue
        plan = _declared(plan, walk)
        assert isinstance(task, ChunkTask)
        made = [
            _kernel(kernel, with_part_launch(one, task, context, plan.shares)) for one in programs
        ]
        kernels += made
        tasks += [_part(task, one) for one in made]
    return replace(plan, tasks=tuple(tasks), kernels=tuple(kernels)).with_common_blocks()


def _count(plan: Plan, task: ChunkTask, context: Context) -> int:
    return plan.chunk_kernels or chunk_kernels(task, context)


def _walk(plan: Plan, task: Task, program: Program) -> Walk | None:
    """The program as one that can be cut; None where it can't."""
    if not isinstance(task, ChunkTask) or task.size is not None or walk_of(program) is None:
        return None
    taken = {buffer.name for buffer in plan.buffers}
    taken |= {dim for buffer in plan.buffers for dim in buffer.dims}
    taken |= {k.program.name for k in plan.kernels} | {plan.mixer.name}
    taken |= {p.name for p in plan.mixer.params} | {dim for dim, _ in plan.lengths}
    return Walk(program, taken, plan.dtype)


def _programs(walk: Walk, count: int) -> tuple[Program, ...]:
    prepared = walk.prepared()
    programs = [walk.program] if prepared is None else [*prepared]
    if count > 2:
        walk.program = programs.pop()
        read = walk.read_apart()
        programs += [walk.program] if read is None else [*read]
    return tuple(programs)


def _declared(plan: Plan, walk: Walk) -> Plan:
    """The plan with the buffers between the programs."""
    buffers = tuple(Buffer(s.buffer, s.dims, s.value.dtype, "temporary") for s in walk.stored)
    tiles = tuple((dim, Literal(size)) for dim, size in walk.tiles.items())
    return replace(
        plan,
        buffers=(*plan.buffers, *buffers),
        block_counts=tuple({**dict(plan.block_counts), **walk.counts}.items()),
        block_lengths=tuple({**dict(plan.block_lengths), **walk.lengths}.items()),
        lengths=tuple({**dict(plan.lengths), **dict(tiles)}.items()),
    )


def _kernel(kernel: Kernel, program: Program) -> Kernel:
    made = replace(kernel, program=program)
    return replace(made, computes=made.writes, reason="all chunks at once")


def _part(task: ChunkTask, kernel: Kernel) -> PartTask:
    name, about = kernel.program.name, kernel.program.about
    return PartTask(name, task, kernel.writes, kernel.reads, about, kernel.reason)
