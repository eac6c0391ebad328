"""Where the few largest of a row end, in one pass: the row's largest so far, in order.

    x > a  -->  a, x = x, a         for each a of the list, the largest first

A row's list stays where its numbers are at hand, and each candidate is looked at once to find the
least of those that are kept, and once more to find the last of its equals. Rows lie side by side,
so that no candidate waits for another of its row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf

from ...ir.selection_tasks import SelectionTask
from ...ir.targets import CpuTarget
from ...ir.tile import DType, Value
from ..tiles.evaluator import Evaluator
from ..tiles.scope import Loop
from .candidates import Candidates

_MOST = 16  # numbers of a row that registers hold, half of them
Carried = Sequence[tuple[str, Value]]


def few_largest(
    evaluator: Evaluator, task: SelectionTask, rows: frozenset[str]
) -> FewLargest | None:
    """The writer of the passes; None where there is no room for so many, or their number is not
    known."""
    kept = evaluator.fixed_number(task.kept)
    if not isinstance(evaluator.context.target, CpuTarget) or not rows:
        return None
    if kept is None or not 1 <= kept <= _MOST or int(kept) != kept:
        return None
    return FewLargest(evaluator, task, rows, int(kept))


class FewLargest(Candidates):
    """The writer of both passes."""

    def __init__(
        self, evaluator: Evaluator, task: SelectionTask, rows: frozenset[str], kept: int
    ) -> None:
        super().__init__(evaluator, task, rows)
        self.kept = kept

    def least(self) -> tuple[Value, Value]:
        """The least that is kept of each row, and for how many of its equals there is room."""
        builder = self.builder
        start = [(f"largest_{n}", self.number(-inf)) for n in range(self.kept)]
        with self._candidates(start) as (loop, x, admitted):
            is_number = self.compared("eq", x, x)
            counts = self.evaluator.both(admitted, is_number) or is_number
            x = self.evaluator.where(counts, x, builder.constant(-inf, DType.FLOAT32))
            loop.yields = self._with(x, loop.carried)
        *larger, least = loop.results
        room = builder.constant(self.kept, DType.INT32, self.rows)
        for number in larger:
            is_larger = builder.cast(self.compared("gt", number, least), DType.INT32)
            room = builder.elementwise("sub", room, is_larger, dtype=DType.INT32, hint="room")
        return least, room

    def last(self, least: Value, room: Value) -> Value:
        """The last place of the equals for which there is room."""
        builder = self.builder
        zero, none = (builder.constant(n, DType.INT32, self.rows) for n in (0, -1))
        with self._candidates([("room", room), ("last", none)]) as (loop, x, admitted):
            room, last = loop.carried
            fits = self.evaluator.both(self.compared("eq", x, least), admitted)
            fits = self.evaluator.both(fits, self.compared("gt", room, zero))
            assert fits is not None
            left = builder.cast(fits, DType.INT32)
            left = builder.elementwise("sub", room, left, dtype=DType.INT32)
            loop.yields = (left, self.evaluator.where(fits, loop.variable, last))
        return loop.results[1]

    def _with(self, x: Value, largest: tuple[Value, ...]) -> tuple[Value, ...]:
        """The largest with one more candidate, which goes behind its equals."""
        made = []
        for number in largest:
            before = self.compared("gt", x, number)
            made.append(self.evaluator.where(before, x, number))
            x = self.evaluator.where(before, number, x)
        return tuple(made)

    @contextmanager
    def _candidates(self, carried: Carried) -> Iterator[tuple[Loop, Value, Value | None]]:
        """Within: a number of each row, and whether it is a candidate (None: it is)."""
        task, builder = self.task, self.builder
        with builder.loop(f"{task.over.lower()}_at", self.low, self.high, 1, carried) as loop:
            builder.place(task.over, loop.variable)
            yield loop, *self.candidate()
