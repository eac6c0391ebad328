"""The kernels of one recurrence: by the forms that its algebra has, or row by row."""

from __future__ import annotations

from dataclasses import replace

from ...ir.mixer import Recurrence
from ...ir.recurrence_forms import Classified, Matrix
from ..analysis.recurrence.classify import classify
from ..analysis.recurrence.flatten import Flat, flatten
from . import chunk as chunk_plan
from . import scan as scan_plan
from .chunk import ChunkPlan
from .loop import LoopPlan
from .plan_builder import PlanBuilder
from .recurrence_context import RecurrenceContext, names_read
from .scan import ScanPlan


def plan_recurrence(builder: PlanBuilder, stage: Recurrence) -> None:
    """Plan a recurrence, and make its results known to later stages."""
    context = RecurrenceContext(builder, stage, names_read(builder.mixer, stage))
    _plan(context, context.inlined())


def _plan(context: RecurrenceContext, stage: Recurrence) -> None:
    """``stage``: with names from outside it inlined."""
    found, names = context.builder.findings, ", ".join(state.name for state in stage.states)
    if context.builder.recurrence == "loop":
        found.append(f"{names} row by row along {stage.over}: as asked")
        LoopPlan(context, stage).run()
        return
    flat = flatten(stage)
    if flat is not None and _in_chunks(context, flat):
        found.append(f"{names} in chunks along {flat.axis}: its rounds laid out in time")
        return
    classified = classify(stage, [ref.name for ref in stage.own if ref.name in context.used])
    chunks = chunk_plan.refusal(stage, classified, context.builder.target)
    scans = scan_plan.refusal(stage, classified)
    if chunks is None:
        found.append(f"{_matrices(classified)} in chunks along {stage.over}")
        ChunkPlan(context, stage, classified, _plan).run()
    elif scans is None:
        found.append(f"{names} scanned along {stage.over}: {chunks}")
        ScanPlan(context, stage, classified).run()
    else:
        why = f"not in chunks: {chunks}; not by a scan: {scans}"
        found.append(f"{names} row by row along {stage.over}: {why}")
        LoopPlan(context, stage).run()


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
