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

from ...ir.targets import CpuTarget
from ...ir.task import SelectionTask
from ...ir.tile import DType, Value
from ..tiles.admitted import ranges_for_rows
from ..tiles.evaluator import Evaluator
from ..tiles.key_blocks import find_range
from ..tiles.scope import Loop
from .candidates import Candidates

_MOST = 16  # numbers of a row that registers hold, half of them
Carried = Sequence[tuple[str, Value]]


def few_largest(
    evaluator: Evaluator, task: SelectionTask, rows: frozenset[str]
) -> tuple[Value, Value] | None:
    """The least that is kept of each row and the last place of its equals; None: by other means."""
    kept = evaluator.fixed_number(task.kept)
    if not isinstance(evaluator.context.target, CpuTarget) or not rows:
        return None
    if kept is None or not 1 <= kept <= _MOST or int(kept) != kept:
        return None
    return _Row(evaluator, task, rows, int(kept)).ends()


class _Row(Candidates):
    """The writer of both passes."""

    def __init__(
        self, evaluator: Evaluator, task: SelectionTask, rows: frozenset[str], kept: int
    ) -> None:
        super().__init__(evaluator, task, rows)
        self.kept = kept

    def ends(self) -> tuple[Value, Value]:
        """See ``few_largest``."""
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
        zero, none = (builder.constant(n, DType.INT32, self.rows) for n in (0, -1))
        with self._candidates([("room", room), ("last", none)]) as (loop, x, admitted):
            room, last = loop.carried
            fits = self.evaluator.both(self.compared("eq", x, least), admitted)
            fits = self.evaluator.both(fits, self.compared("gt", room, zero))
            assert fits is not None
            left = builder.cast(fits, DType.INT32)
            left = builder.elementwise("sub", room, left, dtype=DType.INT32)
            loop.yields = (left, self.evaluator.where(fits, loop.variable, last))
        return least, loop.results[1]

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
        low, high = self._range()
        with builder.loop(f"{task.over.lower()}_at", low, high, 1, carried) as loop:
            builder.place(task.over, loop.variable)
            yield loop, *self.candidate()

    def _range(self) -> tuple[Value, Value]:
        """Where candidates of the block of rows begin, and where they end."""
        size = self.evaluator.size(self.task.over)
        ranges = ranges_for_rows(self.evaluator, self.task.among, self.task.over)
        if len(ranges.disjuncts) != 1:
            return self.builder.constant(0, DType.INT32), size
        return find_range(self.evaluator, ranges, size)
