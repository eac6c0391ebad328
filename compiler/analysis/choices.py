"""Numbers that a choice hangs on: what is ranked, and what is compared with one another.

A rounded number is a little wrong; a choice by it may be wholly wrong, and so is all that reads the
choice. So these numbers keep float32 in memory, and products that they are made of round nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ...ir.expression import Call, Expr, Kind
from ...ir.names import names_in
from ...ir.rewriting import every_node
from ...ir.row_loop import RowLoop
from ...ir.selection_tasks import SelectionTask
from ...ir.task import PointwiseTask, Task

_COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})


def decisive(tasks: Sequence[Task], loops: Sequence[RowLoop] = ()) -> frozenset[str]:
    """The buffers that choices are made by, and those that they are made of.

    What maps and sums read is followed to where it is from. An attention or a recurrence makes its
    products of rounded numbers whatever it reads: its results are among them, not what it reads,
    even where something else reads it, too (weights that are ranked are those of the attention).
    """
    others = [task for task in tasks if not isinstance(task, PointwiseTask | SelectionTask)]
    rounded = frozenset[str]().union(*(task.reads for task in others))
    same = [{view, whole} for loop in loops for view, whole in (*loop.rows, *loop.made)]
    found = frozenset[str]().union(*map(_compared, tasks)) - rounded
    while True:
        before = found
        for task in reversed(tasks):
            if isinstance(task, PointwiseTask) and not found.isdisjoint(task.writes):
                found |= names_in(*task.expressions) - rounded
        found = found.union(*(names for names in same if names & found)) - rounded
        if found == before:
            return found


def _compared(task: Task) -> frozenset[str]:
    """What a task ranks, and real numbers of several places that it compares with each other."""
    ranked = names_in(task.x) if isinstance(task, SelectionTask) else frozenset[str]()
    return ranked.union(*(names_in(*pair) for pair in _pairs(task.expressions)))


def _pairs(expressions: Iterable[Expr]) -> Iterator[tuple[Expr, Expr]]:
    for node in every_node(expressions):
        if isinstance(node, Call) and node.fn in _COMPARISONS:
            a, b = node.args
            if a.kind is b.kind is Kind.REAL and a.axes and b.axes and a != b:
                yield a, b


__all__ = ["decisive"]
