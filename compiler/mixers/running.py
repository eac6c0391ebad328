"""A running sum or extreme along an axis as a recurrence.

cummax(x, T)  -->  recurrence over T: m = max(m, x); row = m
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Literal as OneOf

from ...ir.expression import Expr, Literal, Ref, call
from ...ir.mixer import Equation, Map, Recurrence, Stage, State
from ...ir.rewriting import bound_axes, walk

Op = OneOf["add", "max", "min"]
_START = {"add": 0.0, "max": -inf, "min": inf}


def is_plain(x: Expr) -> bool:
    """Whether a step can have a row of ``x``: nothing in it looks at other positions."""
    return not any(bound_axes(node) for node in walk(x))


def running(
    op: Op,
    x: Expr,
    over: str,
    reverse: bool,
    exclusive: bool,
    name: Callable[[str], str],
) -> tuple[tuple[Stage, ...], Ref]:
    """The stages that make the running value of ``x``, a real number, and its row.

    Args:
        exclusive: the position itself is left out; the first row is what nothing gives.
        name: a name that nothing has, for ``term``, ``state`` or ``row``.
    """
    before: tuple[Stage, ...] = ()
    if not is_plain(x):
        term = Equation(name("term"), x)
        before, x = (Map((term,)),), term.ref
    state = State(name("state"), x.axes - {over}, Literal(_START[op]))
    row = Equation(name("row"), state.ref)
    update = Equation(state.name, call(op, state.ref, x))
    step = (row, update) if exclusive else (update, row)
    stage = Recurrence(over, (state,), step, reverse=reverse)
    (made,) = stage.own
    return (*before, stage), made


__all__ = ["Op", "is_plain", "running"]
