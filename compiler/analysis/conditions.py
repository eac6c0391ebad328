"""Conditions that hold together: a conjunction in its parts, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from ...ir.expression import Call, Expr, call


def conditions_of(where: Expr | None) -> list[Expr]:
    """a and b and c --> [a, b, c]; nothing for None."""
    match where:
        case None:
            return []
        case Call("and", (a, b)):
            return conditions_of(a) + conditions_of(b)
        case _:
            return [where]


def all_of(conditions: Sequence[Expr]) -> Expr | None:
    """[a, b, c] --> a and b and c; None where there is none."""
    return reduce(lambda a, b: call("and", a, b), conditions) if conditions else None
