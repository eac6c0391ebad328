"""Ranks that are compared with a number: found in expressions, where the axis is a long one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...ir.expression import Call, Expr, Index, Kind, Literal, Read, Reduce, Ref, call
from ...ir.plan import Buffer
from ...ir.task import SelectionTask
from ...ir.tile import DType

if TYPE_CHECKING:
    from .workspace import Workspace


@dataclass(frozen=True, slots=True)
class FirstRanks:
    """``rank(x, over) < kept``."""

    x: Expr
    over: str
    kept: Expr

    def admitted(self, x: Expr, least: Expr, last: Expr) -> Expr:
        """The same by the least number of a row and the last place of its equals.

        What is no number has the rank 0.
        """
        tie = call("and", call("eq", x, least), call("le", Index(self.over), last))
        no_number = call("and", call("ne", x, x), call("gt", self.kept, 0))
        return call("or", call("or", call("gt", x, least), tie), no_number)


def first_ranks(expr: Expr) -> FirstRanks | None:
    """The comparison that an expression is, if it is one."""
    match expr:
        case Call("lt", (Reduce() as rank, kept)) | Call("gt", (kept, Reduce() as rank)):
            return _first(rank, kept)
        case Call("le", (Reduce() as rank, kept)) | Call("ge", (kept, Reduce() as rank)):
            return _first(rank, call("add", kept, Literal(1)))
    return None


def _first(rank: Reduce, kept: Expr) -> FirstRanks | None:
    """``sum(y > x or y == x and k < j, K)``, y being x at K."""
    if kept.axes or kept.kind is Kind.REAL or rank.op != "sum" or len(rank.over) != 1:
        return None
    if rank.where is not None or rank.group:
        return None
    (other,) = rank.over
    match rank.x:
        case Call(
            "or",
            (
                Call("gt", (y, x)),
                Call("and", (Call("eq", (same, x_again)), Call("lt", (Index(at), Index(over))))),
            ),
        ) if (same, x_again, at) == (y, x, other):
            elsewhere = Read(x, ((over, Index(other)),))
            if y == elsewhere and x.kind is Kind.REAL and over in x.axes:
                return FirstRanks(x, over, kept)
    return None


def selected(work: Workspace, ranks: FirstRanks) -> Expr:
    """What is among the first of its row, by two numbers for each row that a kernel finds."""
    reason = f"the largest along {ranks.over} are selected"
    x = work.prepared(ranks.x, None, None, inside=True)
    if not work.is_stored(x):
        x = work.store(work.temporary_name(ranks.x), ranks.x, None, "temporary", reason)
    rows, stem = x.axes - {ranks.over}, work.temporary_name(ranks.x)
    least, last = (work.free_name(f"{stem}_{part}") for part in ("least", "last"))
    for name, dtype in ((least, DType.FLOAT32), (last, DType.INT32)):
        work.context.buffers[name] = Buffer(name, work.order(rows), dtype, "temporary")
    tiled = tuple(work.tiled(x, work.order(rows))[-1:])
    about = f"{least}, {last}: where the largest of a row end, and their last equal"
    name = work.kernel_name(least)
    work.tasks.append(
        SelectionTask(name, x, ranks.over, ranks.kept, least, last, tiled, about, reason)
    )
    return ranks.admitted(x, Ref(least, rows, Kind.REAL), Ref(last, rows, Kind.INT))


__all__ = ["FirstRanks", "first_ranks", "selected"]
