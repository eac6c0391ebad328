"""The kernels of one recurrence: by the forms that its algebra has, or row by row."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ...ir.mixer import Recurrence, assignments
from ...ir.recurrence_forms import Classified, Matrix
from ...ir.recurrence_tasks import LoopTask
from ...ir.rewriting import with_names
from ...ir.roles import sets_read
from ...ir.targets import Target
from ..analysis.recurrence.classify import classify
from ..analysis.recurrence.flatten import Flat, flatten
from ..schedules.estimates import has_room, row_elements
from ..schedules.loop import loop as loop_schedule
from . import chunk as chunk_plan
from . import scan as scan_plan
from .axes_apart import axes_apart
from .chunk import ChunkPlan
from .loop import LoopPlan
from .plan_builder import PlanBuilder
from .recurrence_context import RecurrenceContext, names_read
from .row_loop import RowLoopPlan
from .scan import ScanPlan

_THREADS = 256  # of a program that has a multiprocessor's registers
_SHARE = 16  # what is left of these is for the products of a chunk


def plan_recurrence(builder: PlanBuilder, stage: Recurrence) -> None:
    """Plan a recurrence, and make its results known to later stages."""
    context = RecurrenceContext(builder, stage, names_read(builder.mixer, stage))
    _plan(context, context.inlined())


def _plan(context: RecurrenceContext, stage: Recurrence) -> None:
    """``stage``: with names from outside it inlined."""
    found, names = context.builder.findings, ", ".join(state.name for state in stage.states)
    if context.builder.recurrence == "loop":
        _row_by_row(context, stage, f"{names} row by row along {stage.over}: as asked")
        return
    flat = flatten(stage)
    if flat is not None and _in_chunks(context, flat):
        found.append(f"{names} in chunks along {flat.axis}: its rounds laid out in time")
        return
    classified = classify(stage, [ref.name for ref in stage.own if ref.name in context.used])
    chunks = chunk_plan.refusal(stage, classified, context.builder.target)
    scans = scan_plan.refusal(stage, classified)
    if chunks is None and _apart(context, stage, classified):
        found.append(f"{names} along {stage.over} once for each axis that rows read it along")
    elif chunks is None:
        found.append(f"{_matrices(classified)} in chunks along {stage.over}")
        ChunkPlan(context, stage, classified, _plan).run()
    elif scans is None:
        found.append(f"{names} scanned along {stage.over}: {chunks}")
        ScanPlan(context, stage, classified).run()
    else:
        why = f"not in chunks: {chunks}; not by a scan: {scans}"
        _row_by_row(context, stage, f"{names} row by row along {stage.over}: {why}")


def _row_by_row(context: RecurrenceContext, stage: Recurrence, found: str) -> None:
    """Plan rows one after another: within one kernel, or on the host where a row sees too much."""
    builder, loop = context.builder, RowLoopPlan(context, stage)
    axis = loop.long_axis()
    if axis is None:
        sets = frozenset[str]() if loop.has_rounds else sets_read(builder.mixer, context.stage)
        before = builder.mark() if sets else ()
        LoopPlan(context, stage).run()
        if not sets or _is_held(builder):
            builder.findings.append(found)
            return
        builder.back_to(before)
        axis = min(sets)
    why = f"a step goes through {axis}, which no kernel holds: kernels for each row"
    builder.findings.append(f"{found}; {why}")
    loop.run()


def _is_held(builder: PlanBuilder) -> bool:
    """Whether a unit holds what the last task's kernel has of a row: in registers, and in shared
    memory."""
    task, target = builder.tasks[-1], builder.target
    if not isinstance(task, LoopTask) or not isinstance(target, Target):
        return True
    features = builder.roles.features
    program = loop_schedule(task, replace(builder.context, target=target, features=features))
    held = row_elements(program) <= _THREADS * target.registers_per_thread
    return held and has_room(program, target)


def _apart(context: RecurrenceContext, stage: Recurrence, classified: Classified) -> bool:
    """Plan a recurrence as two walks, if one of them would hold too much; whether it is."""
    builder, used = context.builder, context.used
    apart = axes_apart(stage) if _holds_much(builder, classified) else None
    if apart is None:
        return False
    across = {ref.name for ref in apart.second.own}
    _plan(context.of_part(apart.first, (used - across) | apart.handed), apart.first)
    rows = {name: builder.names[name] for name in apart.handed}
    lines = (e for e, _ in assignments(apart.second.step))
    step = tuple(replace(e, value=with_names(e.value, rows)) for e in lines)
    second = replace(apart.second, step=step)
    _plan(context.of_part(second, used & across), second)
    return True


def _holds_much(builder: PlanBuilder, classified: Classified) -> bool:
    """Whether a program that holds a state whole is short of registers.

    A state is there in float32, and where products take their factors from registers once more for
    each axis that it is read along. Where they do not, one walk is faster as long as its turns are
    short: without decays by entry and corrections.
    """
    target = builder.target
    if not isinstance(target, Target) or not builder.dtype.is_narrow:
        return False
    (form, *others) = classified.components
    if others or not isinstance(form, Matrix):
        return False
    long = form.key_axis in form.decay.axes or bool(form.corrected)
    elements = prod(builder.context.sizes.get(dim, 64) for dim in form.state.listed)
    held = elements * (4 if target.products_from_shared else 4 + 2 * builder.dtype.size_bytes)
    file = 4 * target.registers_per_thread * _THREADS
    return held * _SHARE > file and (long or not target.products_from_shared)


def _matrices(classified: Classified) -> str:
    """The names of the states that go in chunks."""
    return ", ".join(s.name for form in chunk_plan.chunked(classified) for s in form.states)


def _in_chunks(context: RecurrenceContext, flat: Flat) -> bool:
    """Plan a recurrence with an inner loop in chunks of its rounds; whether that is possible."""
    names = {ref.name: name for name, ref, _ in flat.rows if name in context.used}
    classified = classify(flat.recurrence, names.keys())
    if chunk_plan.refusal(flat.recurrence, classified, context.builder.target) is not None:
        return False
    if any(not isinstance(form, Matrix) for form in classified.components):
        return False
    own = tuple((names[name], value) for name, value in classified.own if name in names)
    ChunkPlan(context, flat.recurrence, replace(classified, own=own), _plan, flat).run()
    return True
