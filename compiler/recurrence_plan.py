"""The kernels of one recurrence: by the forms that its algebra has, or row by row."""

from __future__ import annotations

from ..ir.mixer import Recurrence
from .loop_plan import LoopPlan
from .stage_rows import StageRows, names_read
from .workspace import Workspace


def plan_recurrence(work: Workspace, stage: Recurrence) -> None:
    """Plan a recurrence, and make its results known to later stages."""
    rows = StageRows(work, stage, names_read(work.mixer, stage))
    LoopPlan(rows, rows.written_out()).run()
