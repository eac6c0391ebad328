"""What the passes of a selection have in common: a row's numbers, and which are candidates."""

from __future__ import annotations

from math import nan

from ...ir.selection_tasks import ChoiceTask, OwnNumbers, SelectionTask
from ...ir.tile import BufferArgument, DType, Value
from ..tiles.admitted import ranges_for_rows
from ..tiles.evaluator import Evaluator
from ..tiles.key_blocks import find_range


class Candidates:
    """A writer of passes over the rows of a tile, which has the axes ``rows``."""

    def __init__(self, evaluator: Evaluator, task: SelectionTask, rows: frozenset[str]) -> None:
        self.evaluator, self.builder = evaluator, evaluator.builder
        self.task, self.rows = task, rows
        self.own = task.own if isinstance(task, ChoiceTask) else None
        self.low, self.high = self._range()

    def candidate(self, within: Value | None = None) -> tuple[Value, Value | None]:
        """The number at the place in force, and whether it is a candidate (None: it is).

        Of numbers that the program keeps, those of no candidates are NaN, as where not ``within``.
        """
        if self.own is not None:
            return self._kept(self.own, within), None
        x = self.builder.cast(self.evaluator.evaluate(self.task.x), DType.FLOAT32)
        if self.task.among is None:
            return x, None
        return x, self.evaluator.condition(self.task.among, "among")

    def number(self, value: float) -> Value:
        """A number for each row."""
        return self.builder.constant(value, DType.FLOAT32, self.rows)

    def compared(self, fn: str, a: Value, b: Value) -> Value:
        """A comparison."""
        return self.builder.elementwise(fn, a, b, dtype=DType.BOOL)

    # ------------------------------------------------------- numbers that the program keeps

    def declare(self, own: OwnNumbers) -> None:
        """Declare the buffer in which they are."""
        buffer = self.evaluator.context.buffers[own.buffer]
        self.builder.buffer(
            BufferArgument(own.buffer, buffer.dims, buffer.dtype, written=True, kept=True)
        )

    def keep(self, own: OwnNumbers) -> None:
        """Make the number at the place in force, for the passes that follow."""
        evaluator, builder = self.evaluator, self.builder
        x = evaluator.real(self.task.x, "score")
        admitted = evaluator.bounds_of([self.task.over])
        if self.task.among is not None:
            admitted = evaluator.both(admitted, evaluator.condition(self.task.among, "among"))
        if admitted is not None:
            x = evaluator.where(admitted, x, builder.constant(nan, DType.FLOAT32), "score")
        mask = builder.bound(self.task.over)
        builder.store(own.buffer, self._places(own), evaluator.spread(x, self.rows), mask)

    def _kept(self, own: OwnNumbers, within: Value | None) -> Value:
        mask = self.evaluator.both(self.builder.bound(self.task.over), within)
        return self.builder.load(own.buffer, self._places(own), mask, nan, "score")

    def _places(self, own: OwnNumbers) -> list[tuple[str, Value]]:
        """A row's place is the one that it has in the block."""
        evaluator, builder = self.evaluator, self.builder
        (row,) = self.task.tiled
        slot = builder.range(row, None, f"{row.lower()}_slot")
        dims = evaluator.context.buffers[own.buffer].dims
        return [(d, slot if d == own.block else evaluator.position(d)) for d in dims]

    # ------------------------------------------------------------------------------ places

    def _range(self) -> tuple[Value, Value]:
        """Where candidates of the block of rows begin, and where they end."""
        size = self.evaluator.size(self.task.over)
        ranges = ranges_for_rows(self.evaluator, self.task.among, self.task.over)
        if len(ranges.disjuncts) != 1:
            return self.builder.constant(0, DType.INT32), size
        return find_range(self.evaluator, ranges, size)


__all__ = ["Candidates"]
