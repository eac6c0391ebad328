"""Numbers that a choice hangs on are kept in float32, whatever the working precision.

    got, of which the largest are chosen, in bfloat16 --> got in float32

What a kernel reads and what it makes of it are the same; outputs stay as the mixer gives them, and
with what is given to it a row that is looked at has the memory's type.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.plan import Plan
from ...ir.tile import DType
from ..analysis.choices import decisive


def widen_choices(plan: Plan) -> Plan:
    """Each temporary, and each view, that decides and is narrow, in float32."""
    if not plan.dtype.is_narrow:
        return plan
    outside = {buffer.name for buffer in plan.buffers if buffer.role in ("input", "output")}
    rows = (pair for loop in plan.loops for pair in (*loop.rows, *loop.made))
    found = decisive(plan.tasks, plan.loops) - {view for view, whole in rows if whole in outside}
    buffers = tuple(
        replace(buffer, dtype=DType.FLOAT32)
        if buffer.name in found and buffer.dtype.is_narrow and buffer.role in ("temporary", "view")
        else buffer
        for buffer in plan.buffers
    )
    return plan if buffers == plan.buffers else replace(plan, buffers=buffers)


__all__ = ["widen_choices"]
