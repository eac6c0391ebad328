"""Passes over the candidates of a tile's rows, a block of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.expression import Size, call
from ...ir.task import SelectionTask
from ...ir.tile import DType, Value
from ..tiles.evaluator import Evaluator
from .candidates import Candidates

Carried = Sequence[tuple[str, Value]]
# The numbers of a block and what is carried --> what is carried on.
LoopBody = Callable[[Value, tuple[Value, ...]], tuple[Value, ...]]


class RowPasses(Candidates):
    """The writer of the passes over rows of the tile."""

    def __init__(self, evaluator: Evaluator, task: SelectionTask, rows: frozenset[str]) -> None:
        super().__init__(evaluator, task, rows)
        most = call("min", task.kept, Size(task.over))  # fits 32 bits whatever is asked for
        self.kept = self.builder.cast(evaluator.evaluate(most, "kept"), DType.INT32)
        self.candidates: Value | None = None  # of the block in force

    def last(self, least: Value) -> Value:
        """The place of the last equal for which there is room."""
        builder, over = self.builder, self.task.over
        none = self.whole(0, self.rows)
        (larger,) = self.walk(
            [("larger", none)],
            lambda x, state: (self.counted(self.those("gt", x, least), state[0]),),
        )
        room = builder.elementwise("sub", self.kept, larger, dtype=DType.INT32, hint="room")

        def body(x: Value, state: tuple[Value, ...]) -> tuple[Value, ...]:
            equal = self.those("eq", x, least)
            number = builder.scan(self._flag(equal), over)
            number = builder.elementwise("add", number, state[0], dtype=DType.INT32)
            fits = self.evaluator.both(equal, self.compared("le", number, room))
            assert fits is not None
            place = self.evaluator.where(fits, builder.position(over), self.whole(-1))
            best = builder.reduce("max", place, over)
            further = builder.elementwise("max", state[1], best, dtype=DType.INT32)
            return self.counted(equal, state[0]), further

        _, last = self.walk([("equals", none), ("last", self.whole(-1, self.rows))], body)
        return last

    def walk(self, carried: Carried, body: LoopBody) -> tuple[Value, ...]:
        """One pass over the axis."""
        builder, over = self.builder, self.task.over
        size, block = self.evaluator.size(over), builder.block(over)
        start, zero = f"{over.lower()}_start", self.whole(0)
        with builder.loop(start, zero, size, block.name, carried) as loop:
            position = builder.range(over, loop.variable, over.lower())
            exists = builder.elementwise("lt", position, size, dtype=DType.BOOL)
            builder.place(over, position, exists)
            x, among = self.candidate()
            self.candidates = self.evaluator.both(exists, among)
            loop.yields = body(x, loop.carried)
        return loop.results

    def counted(self, flags: Value, so_far: Value) -> Value:
        """How many there are of each row, with those before."""
        number = self.builder.reduce("sum", self._flag(flags), self.task.over)
        return self.integer("add", so_far, number)

    def those(self, fn: str, x: Value, bound: Value) -> Value:
        """The candidates of the block for which it holds."""
        those = self.evaluator.both(self.candidates, self.compared(fn, x, bound))
        assert those is not None
        return those

    def whole(self, value: int, axes: frozenset[str] = frozenset()) -> Value:
        """An integer."""
        return self.builder.constant(value, DType.INT32, axes)

    def integer(self, fn: str, *args: Value, hint: str = "") -> Value:
        """Arithmetic of integers."""
        return self.builder.elementwise(fn, *args, dtype=DType.INT32, hint=hint)

    def _flag(self, value: Value) -> Value:
        return self.builder.cast(value, DType.INT32)


__all__ = ["LoopBody", "RowPasses"]
