"""Passes over the candidates of a tile's rows, a block of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ...ir.expression import Expr, Size, call
from ...ir.selection_tasks import SelectionTask
from ...ir.targets import Target
from ...ir.tile import DType, Value
from ..tiles.evaluator import Evaluator
from ..tiles.grid import store_result
from ..tiles.key_blocks import down_to_block
from ..tiles.scope import Loop
from .candidates import Candidates

Carried = Sequence[tuple[str, Value]]
# The numbers of a block and what is carried --> what is carried on.
LoopBody = Callable[[Value, tuple[Value, ...]], tuple[Value, ...]]


class RowPasses(Candidates):
    """The writer of the passes over rows of the tile."""

    def __init__(self, evaluator: Evaluator, task: SelectionTask, rows: frozenset[str]) -> None:
        super().__init__(evaluator, task, rows)
        self.candidates: Value | None = None  # of the block in force
        self.first = down_to_block(evaluator, self.low, task.over, f"{task.over.lower()}_first")

    def make(self) -> None:
        """The numbers of the rows, where the program keeps them."""
        if self.own is not None:
            self.declare(self.own)
            with self._blocks(self.first, self.high, []) as loop:
                self.builder.comment("the scores, once for all passes")
                self.keep(self.own)
                loop.yields = ()

    def last(self, least: Value, room: Value) -> Value:
        """The place of the last equal for which there is room."""
        builder, over = self.builder, self.task.over

        def body(x: Value, state: tuple[Value, ...]) -> tuple[Value, ...]:
            fits, count = self._fitting(x, least, room, state[0])
            place = self.evaluator.where(fits, builder.position(over), self.whole(-1))
            best = builder.reduce("max", place, over)
            return count, self.integer("max", state[1], best)

        start = [("equals", self.whole(0, self.rows)), ("last", self.whole(-1, self.rows))]
        return self.walk(start, body)[1]

    def choose(self, chosen: str, always: Expr | None, least: Value, room: Value) -> None:
        """Store whether each position is chosen: larger, or an equal for which there is room."""
        evaluator = self.evaluator
        with self.whole_row([("equals", self.whole(0, self.rows))]) as (loop, x):
            fits, count = self._fitting(x, least, room, loop.carried[0])
            made = self.either(self.those("gt", x, least), fits)
            if always is not None:
                made = self.either(made, evaluator.condition(always, "always"))
            store_result(evaluator, chosen, made)
            loop.yields = (count,)

    @contextmanager
    def whole_row(self, carried: Carried) -> Iterator[tuple[Loop, Value]]:
        """Within: a block of positions, candidates or not, with their numbers."""
        with self._blocks(self.whole(0), self.evaluator.size(self.task.over), carried) as loop:
            x, self.candidates = self.candidate(self._within())
            yield loop, x

    def walk(self, carried: Carried, body: LoopBody) -> tuple[Value, ...]:
        """One pass over the candidates."""
        with self._blocks(self.first, self.high, carried) as loop:
            x, self.candidates = self.candidate()
            if self.own is None:
                exists = self.builder.bound(self.task.over)
                self.candidates = self.evaluator.both(exists, self.candidates)
            loop.yields = body(x, loop.carried)
        return loop.results

    def gather(
        self, starts: Sequence[tuple[str, str, Value]], found: Callable[[Value], Sequence[Value]]
    ) -> tuple[Value, ...]:
        """What is found of the candidates in one pass, brought together by ``sum`` or ``max``.

        ``starts``: a name, how, and what to start from. A GPU's threads wait for each other to
        bring what they have found together: there that is done once, at the end.
        """
        builder, over = self.builder, self.task.over
        late = isinstance(self.evaluator.context.target, Target)
        carried = [(hint, value) for hint, _, value in starts]
        if late:
            axes = self.rows | {over}
            carried = [(hint, self.evaluator.spread(value, axes)) for hint, value in carried]

        def body(x: Value, state: tuple[Value, ...]) -> tuple[Value, ...]:
            made = []
            for (_, op, _), value, so_far in zip(starts, found(x), state, strict=True):
                value = self.flag(value) if value.dtype is DType.BOOL else value
                value = value if late else builder.reduce(op, value, over)
                made.append(self.evaluator.merge(op, so_far, value))
            return tuple(made)

        results = self.walk(carried, body)
        if late:
            pairs = zip(starts, results, strict=True)
            results = tuple(builder.reduce(op, value, over) for (_, op, _), value in pairs)
        return results

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

    def _fitting(self, x: Value, least: Value, room: Value, before: Value) -> tuple[Value, Value]:
        """The equals of the block for which there is room, and how many equals there are so far."""
        builder = self.builder
        equal = self.those("eq", x, least)
        flag = self.flag(equal)
        number = self.integer("add", builder.scan(flag, self.task.over), before)
        fits = self.evaluator.both(equal, self.compared("le", number, room))
        assert fits is not None
        count = builder.reduce("sum", flag, self.task.over)
        return fits, self.integer("add", before, count)

    def _within(self) -> Value | None:
        """Whether the program has kept a number for the place in force; None: it has."""
        position = self.builder.position(self.task.over)
        within = self.compared("lt", position, self.high)
        if self.builder.constant_of(self.first) == 0:
            return within
        return self.evaluator.both(within, self.compared("ge", position, self.first))

    @contextmanager
    def _blocks(self, first: Value, end: Value, carried: Carried) -> Iterator[Loop]:
        """Within: a block of positions."""
        builder, over = self.builder, self.task.over
        name, block = over.lower(), builder.block(over)
        with builder.loop(f"{name}_start", first, end, block.name, carried) as loop:
            position = builder.range(over, loop.variable, name)
            size = self.evaluator.size(over)
            exists = builder.elementwise("lt", position, size, dtype=DType.BOOL)
            builder.place(over, position, exists)
            yield loop

    def either(self, a: Value, b: Value) -> Value:
        """Where one holds."""
        return self.builder.elementwise("or", a, b, dtype=DType.BOOL)

    def both(self, *conditions: Value | None) -> Value:
        """Where all hold."""
        made: Value | None = None
        for condition in conditions:
            made = self.evaluator.both(made, condition)
        assert made is not None
        return made

    def flag(self, value: Value) -> Value:
        """A truth as 0 or 1."""
        return self.builder.cast(value, DType.INT32)


def kept_number(row: RowPasses) -> Value:
    """How many are kept of each row, at most all: that fits 32 bits whatever is asked for."""
    most = call("min", row.task.kept, Size(row.task.over))
    return row.builder.cast(row.evaluator.evaluate(most, "kept"), DType.INT32)


__all__ = ["LoopBody", "RowPasses", "kept_number"]
