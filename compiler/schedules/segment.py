"""The rows that a program of a recurrence takes, where it takes a segment of them."""

from __future__ import annotations

from ...ir.promises import CommonBlocks
from ...ir.tile import DType, GridAxis, SizeArgument, Value
from ..tiles.evaluator import Evaluator
from ..tiles.key_blocks import integer


def rows_of_segment(evaluator: Evaluator, over: str, segment: str | None) -> tuple[Value, Value]:
    """From a first row of ``over`` to before another: all, or those of one position of
    ``segment``, a dim of the grid then. Segments are whole blocks of rows, the last ones aside."""
    builder, size = evaluator.builder, evaluator.size(over)
    zero = builder.constant(0, DType.INT32)
    if segment is None:
        return zero, size
    position = builder.grid_position(segment, f"{over.lower()}_segment")
    builder.grid.append(GridAxis(segment, position))
    builder.place(segment, position)
    builder.promises.add(CommonBlocks(over, segment))
    block, one = builder.block(over), builder.constant(1, DType.INT32)

    def blocks(value: Value, of: Value) -> Value:
        filled = integer(evaluator, "add", value, integer(evaluator, "sub", of, one))
        return integer(evaluator, "floordiv", filled, of)

    count = builder.scalar(SizeArgument(segment))
    rows = blocks(blocks(size, block), count)
    rows = integer(evaluator, "mul", rows, block, hint="segment_rows")
    first = integer(evaluator, "mul", position, rows, hint="first_row")
    end = integer(evaluator, "min", integer(evaluator, "add", first, rows), size, hint="end_row")
    return first, end
