"""The kernels of one recurrence: by the forms that its algebra has, or row by row."""

from __future__ import annotations

from dataclasses import replace

from ...ir.mixer import Recurrence
from ..analysis.recurrence.classify import classify
from ..analysis.recurrence.flatten import Flat, flatten
from ..analysis.recurrence.forms import Matrix
from . import chunk as chunk_plan
from . import scan as scan_plan
from .chunk import ChunkPlan
from .loop import LoopPlan
from .recurrence_context import StageRows, names_read
from .scan import ScanPlan
from .workspace import Workspace


def plan_recurrence(work: Workspace, stage: Recurrence) -> None:
    """Plan a recurrence, and make its results known to later stages."""
    rows = StageRows(work, stage, names_read(work.mixer, stage))
    _plan(rows, rows.written_out())


def _plan(rows: StageRows, stage: Recurrence) -> None:
    """``stage``: with names from outside it written out."""
    if rows.work.recurrence != "loop":
        needed = [ref.name for ref in stage.own if ref.name in rows.used]
        flat = flatten(stage)
        if flat is not None and _in_chunks(rows, flat):
            return
        classified = classify(stage, needed)
        if chunk_plan.refusal(stage, classified) is None:
            ChunkPlan(rows, stage, classified, _plan).run()
            return
        if scan_plan.refusal(stage, classified) is None:
            ScanPlan(rows, stage, classified).run()
            return
    LoopPlan(rows, stage).run()


def _in_chunks(rows: StageRows, flat: Flat) -> bool:
    """Plan a recurrence with an inner loop in chunks of its rounds; whether that is possible."""
    names = {ref.name: name for name, ref, _ in flat.rows if name in rows.used}
    classified = classify(flat.recurrence, names.keys())
    if chunk_plan.refusal(flat.recurrence, classified) is not None:
        return False
    if any(not isinstance(form, Matrix) for form in classified.components):
        return False
    own = tuple((names[name], value) for name, value in classified.own if name in names)
    ChunkPlan(rows, flat.recurrence, replace(classified, own=own), _plan, flat).run()
    return True
