"""Running sums that something is added to which all their rows have in common: they start from it.

    cumsum(x, T) - y + sum(S * dS, D, E) --> (sum(S * dS, D, E), then x row by row) - y

What is added would be made again for each block of rows, and is often large: of a decay's gradient,
the products of all entries of a matrix with those of its adjoint.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.expression import Call, Cumsum, Expr, Kind, Reduce, call
from ...ir.rewriting import walk


def running_sum(expr: Expr, sizes: Mapping[str, int]) -> tuple[Cumsum, Expr | None] | None:
    """The running sum along an axis of any length that ``expr`` is, and what it starts from."""
    match expr:
        case Cumsum(_, over) if over not in sizes:
            return expr, None
        case Call("add", (Cumsum(_, over) as rows, start)) if _may_start(start, over, sizes):
            return (rows, start) if over not in sizes else None
    return None


def with_starts(expr: Expr, sizes: Mapping[str, int]) -> Expr:
    """``expr``, if it is a sum with one running sum, such that this has all it can start from."""
    terms = _terms(expr)
    rows = [t for t in terms if isinstance(t, Cumsum) and t.over not in sizes]
    if len(terms) < 2 or len(rows) != 1 or rows[0].kind is not Kind.REAL:
        return expr
    starts = [t for t in terms if _may_start(t, rows[0].over, sizes)]
    if not starts:
        return expr
    others = [t for t in terms if t is not rows[0] and t not in starts]
    total = call("add", rows[0], _sum(starts))
    for term in others:
        match term:
            case Call("neg", (less,)):
                total = call("sub", total, less)
            case _:
                total = call("add", total, term)
    return total


def _may_start(term: Expr, over: str, sizes: Mapping[str, int]) -> bool:
    """Whether a term is the same in all rows, and more than a number to look up."""
    sums = [node for node in walk(term) if isinstance(node, Reduce)]
    fixed = all(dim in sizes for node in sums for dim in node.over)
    return bool(sums) and fixed and over not in term.axes and term.kind is Kind.REAL


def _terms(expr: Expr) -> list[Expr]:
    match expr:
        case Call("add", (a, b)):
            return [*_terms(a), *_terms(b)]
        case Call("sub", (a, b)):
            return [*_terms(a), call("neg", b)]
    return [expr]


def _sum(terms: list[Expr]) -> Expr:
    total = terms[0]
    for term in terms[1:]:
        total = call("add", total, term)
    return total


__all__ = ["running_sum", "with_starts"]
