"""The kernels of one recurrence: by the forms that its algebra has, or row by row."""

from __future__ import annotations

from ..ir.mixer import Recurrence
from . import chunk_plan, scan_plan
from .analysis.recurrence.classify import classify
from .chunk_plan import ChunkPlan
from .loop_plan import LoopPlan
from .scan_plan import ScanPlan
from .stage_rows import StageRows, names_read
from .workspace import Workspace


def plan_recurrence(work: Workspace, stage: Recurrence) -> None:
    """Plan a recurrence, and make its results known to later stages."""
    rows = StageRows(work, stage, names_read(work.mixer, stage))
    _plan(rows, rows.written_out())


def _plan(rows: StageRows, stage: Recurrence) -> None:
    """``stage``: with names from outside it written out."""
    if rows.work.recurrence != "loop":
        needed = [ref.name for ref in stage.own if ref.name in rows.used]
        classified = classify(stage, needed)
        if chunk_plan.refusal(stage, classified) is None:
            ChunkPlan(rows, stage, classified, _plan).run()
            return
        if scan_plan.refusal(stage, classified) is None:
            ScanPlan(rows, stage, classified).run()
            return
    LoopPlan(rows, stage).run()
