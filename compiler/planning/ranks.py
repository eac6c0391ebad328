"""Ranks that are compared with a number: found in expressions, where the axis is a long one."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.expression import Call, Expr, Index, Kind, Literal, Read, Reduce, call


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
