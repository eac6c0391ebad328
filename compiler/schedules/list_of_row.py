"""The list of what is chosen of a row: the best, then the next, a place at a time.

    the largest that comes after the last listed, of its equals the first --> the next place

What ``always`` adds follows in the order of positions, once nothing else is to be listed.
"""

from __future__ import annotations

from math import inf

from ...ir.expression import Expr
from ...ir.selection_tasks import ChoiceTask
from ...ir.tile import DType, Value
from ...ir.verify_plan import LONGEST
from ..tiles.grid import store_result
from .mass import Mass
from .row_passes import RowPasses, kept_number


class ListOfRow:
    """The writer of a list for each row of the tile."""

    def __init__(self, row: RowPasses, task: ChoiceTask) -> None:
        self.row, self.task = row, task
        self.builder, self.evaluator = row.builder, row.evaluator
        self.beyond = row.whole(LONGEST, row.rows)  # a place that no row has
        self.mass = Mass(row, task.kept) if task.rule == "mass" else None
        self.kept = kept_number(row) if task.rule == "top" else None

    def store(self, listed: str) -> None:
        """Fill the rows of the buffer ``listed``."""
        row, builder, task, where = self.row, self.builder, self.task, self.evaluator.where
        none = row.whole(-1, row.rows)
        start = [("best", row.number(inf)), ("at", none)]
        start += [("added", none)] if task.always is not None else []
        start += [("taken", row.number(0.0))] if self.mass is not None else []
        size = self.evaluator.size(task.slots)
        with builder.loop(task.slots.lower(), row.whole(0), size, 1, start) as loop:
            builder.place(task.slots, loop.variable)
            best, at, *state = loop.carried
            following, place = self._next(best, at)
            counts = self._counts(loop.variable, following, place, state[-1:])
            entry, yields = none, [where(counts, following, best), where(counts, place, at)]
            if task.always is not None:
                added = self._added(task.always, best, at, state[0])
                entry = where(row.compared("lt", added, self.beyond), added, none)
                yields.append(where(counts, state[0], added))
            if self.mass is not None:
                weight = where(counts, self.mass.weight(following), row.number(0.0))
                yields.append(builder.elementwise("add", state[-1], weight, dtype=DType.FLOAT32))
            store_result(self.evaluator, listed, where(counts, place, entry))
            loop.yields = tuple(yields)

    def _next(self, best: Value, at: Value) -> tuple[Value, Value]:
        """The next number after one that is listed, and its place; beyond all where none is."""
        row, builder, over = self.row, self.builder, self.task.over
        where = self.evaluator.where

        def body(x: Value, state: tuple[Value, ...]) -> tuple[Value, ...]:
            position = builder.position(over)
            later = row.both(row.those("eq", x, best), row.compared("gt", position, at))
            after = row.either(row.those("lt", x, best), later)
            largest = builder.reduce("max", where(after, x, row.number(-inf)), over)
            first = row.both(after, row.compared("eq", x, largest))
            place = builder.reduce("min", where(first, position, self.beyond), over)
            larger = row.compared("gt", largest, state[0])
            better = row.either(larger, row.compared("eq", state[1], self.beyond))
            return where(better, largest, state[0]), where(better, place, state[1])

        start = [("following", row.number(-inf)), ("place", self.beyond)]
        following, place = row.walk(start, body)
        return following, place

    def _counts(self, slot: Value, following: Value, place: Value, taken: list[Value]) -> Value:
        """Whether the next number is one of those that are kept."""
        row = self.row
        exists = row.compared("lt", place, self.beyond)
        if self.kept is not None:
            return row.both(exists, row.compared("lt", slot, self.kept))
        if self.mass is not None:
            within = row.compared("lt", taken[0], self.mass.wanted)
            return row.both(exists, within, self.mass.is_number)
        return row.both(exists, row.compared("gt", following, self.evaluator.real(self.task.kept)))

    def _added(self, always: Expr, best: Value, at: Value, added: Value) -> Value:
        """The next place that ``always`` adds: not of one that is listed."""
        row, builder, over = self.row, self.builder, self.task.over
        with row.whole_row([("next", self.beyond)]) as (loop, x):
            position = builder.position(over)
            same = row.both(row.those("eq", x, best), row.compared("le", position, at))
            listed = row.either(row.those("gt", x, best), same)
            new = row.both(
                builder.elementwise("not", listed, dtype=DType.BOOL),
                row.compared("gt", position, added),
                self.evaluator.condition(always, "always"),
                builder.bound(over),
            )
            here = builder.reduce("min", self.evaluator.where(new, position, self.beyond), over)
            loop.yields = (row.integer("min", loop.carried[0], here),)
        return loop.results[0]


__all__ = ["ListOfRow"]
