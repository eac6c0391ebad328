"""A running sum as lines of a row and states of a walk.

The sum goes from row to row with what its roundings have lost (Neumaier 1974): it may be large
beside what is made of it, and row by row the losses would add up. So ``schedules/pointwise`` has
it by blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from ...ir.expression import Expr, Kind, Literal, Ref, call
from ...ir.mixer import State
from ...ir.recurrence_tasks import Carrying
from ...ir.single_assignment import Version, before_row
from ...ir.task import RunningSumTask


@dataclass(frozen=True, slots=True)
class CarriedSum:
    """What a walk has more with a running sum in it: lines, states, and the sum in each row."""

    lines: tuple[Version, ...]
    states: tuple[Carrying, ...]
    value: Expr


def carried_sum(
    task: RunningSumTask, x: Expr, start: Expr, free: Callable[[str], str]
) -> CarriedSum:
    """The running sum of ``x``, a row's part of it; ``free`` gives names that nothing else has."""
    dims = x.axes - {task.sum.over}
    so_far, lost = (
        State(free(f"{task.result}_{part}"), dims, Literal(0.0)) for part in ("so_far", "lost")
    )
    before, losses = before_row(so_far), before_row(lost)
    lines: list[Version] = []

    def line(name: str, value: Expr) -> Ref:
        ref = Ref(free(f"{task.result}_{name}"), dims, Kind.REAL)
        lines.append(Version(ref, ref.name, value))
        return ref

    added = line("added", x)
    total = line("total", call("add", before, added))
    taken = line("taken", call("sub", total, before))
    kept = line("kept", call("sub", total, taken))
    rounded = line("rounded", call("add", call("sub", before, kept), call("sub", added, taken)))
    finite = call("lt", call("abs", total), Literal(inf))
    more = line("losses", call("add", losses, call("where", finite, rounded, Literal(0.0))))
    states = (
        Carrying(so_far.name, dims, Kind.REAL, start, before, total, None),
        Carrying(lost.name, dims, Kind.REAL, Literal(0.0), losses, more, None),
    )
    value = call("add", before, losses) if task.sum.exclusive else call("add", total, more)
    return CarriedSum(tuple(lines), states, value)
