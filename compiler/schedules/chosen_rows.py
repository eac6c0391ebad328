"""Rows or chunks that hold rows which a choice picks: told by where they stand, in the choice.

    where(block * n + place == t, 1, 0) --> where(block * n + place == t and t_chosen, 1, 0)

with ``t_chosen`` true in the turns between the first row that some column of the program picks and
the last. It says nothing new. But it is known before a turn is looked into, so that the others can
go without what the choice multiplies (``passes/walk_in_runs``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from ...ir.expression import Call, Expr, Kind, Ref, call
from ...ir.recurrence_tasks import ChunkTask, LoopTask
from ...ir.renaming import Changed
from ...ir.rewriting import substitute, walk
from ...ir.tile import DType, Value
from ..analysis.recurrence.matrix import is_choice
from ..tiles.admitted import ranges_for_rows
from ..tiles.evaluator import Evaluator
from ..tiles.key_blocks import down_to_block, find_range, integer, up_to_block

Walking = TypeVar("Walking", ChunkTask, LoopTask)


@dataclass(frozen=True)
class Chosen:
    """``ref`` is true in turns that start from ``first`` on, before ``end``: None is no bound."""

    ref: Ref
    first: Value | None
    end: Value | None

    def bind(self, evaluator: Evaluator, start: Value) -> None:
        """Let ``ref`` be what it is for the turn that starts at ``start``."""
        builder = evaluator.builder
        bounds = (("ge", self.first), ("lt", self.end))
        known = [
            builder.elementwise(fn, start, bound, dtype=DType.BOOL)
            for fn, bound in bounds
            if bound is not None
        ]
        value = evaluator.both(known[0], known[-1])
        assert value is not None
        builder.bind(self.ref, value, here=True)


def with_chosen_rows(evaluator: Evaluator, task: Walking) -> tuple[Walking, tuple[Chosen, ...]]:
    """The task with its choices told by turns, where the mask analysis bounds their rows."""
    made: list[Chosen] = []
    changed: dict[Expr, Expr] = {}
    for choice in dict.fromkeys(_choices(task)):
        condition, *numbers = choice.args
        ref = Ref(f"{task.over} chosen {len(made) + 1}", frozenset(), Kind.BOOL)
        found = _chosen(evaluator, task, condition, ref)
        if found is not None:
            made.append(found)
            changed[choice] = call("where", call("and", condition, ref), *numbers)
    if not made:
        return task, ()

    def told(expr: Expr) -> Expr:
        return substitute(expr, changed)

    return Changed(told, {})(task), tuple(made)


def _choices(task: ChunkTask | LoopTask) -> Iterator[Call]:
    """The choices of what rows write, 0 where they pick nothing."""
    for value in task.row_values:
        for node in walk(value):
            if is_choice(node) and isinstance(node, Call):
                _, yes, _ = node.args
                if task.over in node.axes and getattr(yes, "value", 0) == 1:
                    yield node


def _chosen(
    evaluator: Evaluator, task: ChunkTask | LoopTask, condition: Expr, ref: Ref
) -> Chosen | None:
    """The turns of the rows that a condition admits for the program's columns; None: any."""
    rows = task.over
    ranges = ranges_for_rows(evaluator, condition, rows)
    if len(ranges.disjuncts) != 1:
        return None
    (only,) = ranges.disjuncts
    if not only.lower and not only.upper:
        return None
    size = evaluator.size(rows)
    low, high = find_range(evaluator, ranges, size)
    below, above = bool(only.lower), bool(only.upper)
    if task.reverse:  # rows are counted from the end
        low, high = (integer(evaluator, "sub", size, bound) for bound in (high, low))
        below, above = above, below
    name = rows.lower()
    if rows not in evaluator.builder.tiles:  # a turn is a row
        return Chosen(ref, low if below else None, high if above else None)
    return Chosen(
        ref,
        down_to_block(evaluator, low, rows, f"{name}_chosen_first") if below else None,
        up_to_block(evaluator, high, rows, f"{name}_chosen_end") if above else None,
    )


__all__ = ["Chosen", "with_chosen_rows"]
