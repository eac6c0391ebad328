"""What the passes of a selection have in common: a row's numbers, and which are candidates."""

from __future__ import annotations

from ...ir.task import SelectionTask
from ...ir.tile import DType, Value
from ..tiles.evaluator import Evaluator


class Candidates:
    """A writer of passes over the rows of a tile, which has the axes ``rows``."""

    def __init__(self, evaluator: Evaluator, task: SelectionTask, rows: frozenset[str]) -> None:
        self.evaluator, self.builder = evaluator, evaluator.builder
        self.task, self.rows = task, rows

    def candidate(self) -> tuple[Value, Value | None]:
        """The number at the place in force, and whether it is a candidate (None: it is)."""
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


__all__ = ["Candidates"]
