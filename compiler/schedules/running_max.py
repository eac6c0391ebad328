"""The maximum that weights and sums of a row are relative to while keys pass by."""

from __future__ import annotations

from ...ir.targets import CpuTarget
from ...ir.tile import DType, Value
from ..tiles.evaluator import Evaluator


def raised(evaluator: Evaluator, row_max: Value, block_max: Value) -> Value:
    """The maximum so far; or, where products by tiles add to sums in memory, one that is 8 behind
    it at most, so that they are seldom rescaled: weights are at most 2 ** 8 then."""
    builder, target = evaluator.builder, evaluator.context.target
    if not isinstance(target, CpuTarget) or not target.tile_dot:
        return builder.elementwise("max", row_max, block_max, dtype=DType.FLOAT32, hint="new_max")
    gap = builder.elementwise("sub", block_max, row_max, dtype=DType.FLOAT32)
    behind = builder.constant(8.0, DType.FLOAT32)
    rises = builder.elementwise("gt", gap, behind, dtype=DType.BOOL, hint="rises")
    return evaluator.where(rises, block_max, row_max, "new_max")
