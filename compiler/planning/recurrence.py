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
from .recurrence_context import StageRows, names_read
from .scan import ScanPlan
from .workspace import Workspace


def plan_recurrence(work: Workspace, stage: Recurrence) -> None:
    """Plan a recurrence, and make its results known to later stages."""
    rows = StageRows(work, stage, names_read(work.mixer, stage))
    _plan(rows, rows.written_out())


def _plan(rows: StageRows, stage: Recurrence) -> None:
    """``stage``: with names from outside it written out."""
    found, names = rows.work.findings, ", ".join(state.name for state in stage.states)
    if rows.work.recurrence == "loop":
        found.append(f"{names} row by row along {stage.over}: as asked")
        LoopPlan(rows, stage).run()
        return
    flat = flatten(stage)
    if flat is not None and _in_chunks(rows, flat):
        found.append(f"{names} in chunks along {flat.axis}: its rounds laid out in time")
        return
    classified = classify(stage, [ref.name for ref in stage.own if ref.name in rows.used])
    chunks, scans = chunk_plan.refusal(stage, classified), scan_plan.refusal(stage, classified)
    if chunks is None:
        found.append(f"{_matrices(classified)} in chunks along {stage.over}")
        ChunkPlan(rows, stage, classified, _plan).run()
    elif scans is None:
        found.append(f"{names} scanned along {stage.over}: {chunks}")
        ScanPlan(rows, stage, classified).run()
    else:
        why = f"not in chunks: {chunks}; not by a scan: {scans}"
        found.append(f"{names} row by row along {stage.over}: {why}")
        LoopPlan(rows, stage).run()


def _matrices(classified: Classified) -> str:
    """The names of the states that go in chunks."""
    return ", ".join(s.name for form in chunk_plan.chunked(classified) for s in form.states)


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
