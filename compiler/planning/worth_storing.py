"""Which values a kernel makes of its own before another reads them, and which are made where read.

A value is made where it is read unless that repeats much work: running sums, reductions over an
axis that no tile holds, and costly functions of the keys alone, which every block of queries would
compute again.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from ...ir.expression import (
    TRANSCENDENTAL,
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
    Solve,
    call,
)
from ...ir.rewriting import walk
from ...ir.roles import DimRoles
from ..analysis.facts import is_nonnegative
from ..tiles.context import Context
from .started_sums import running_sum


@dataclass(frozen=True, slots=True)
class Place:
    """Where a kernel reads a value: the axes of its blocks and of its loop.

    ``inside``: within a reduction over a long axis, or in an attention.
    """

    block: str | None
    loop: str | None
    inside: bool


def reason_to_store(expr: Expr, place: Place, context: Context, roles: DimRoles) -> str | None:
    """Why a value is to be stored before it is read there; None where it is made there."""
    if running_sum(expr, context.sizes) is not None:
        return "a running sum"
    if isinstance(expr, Solve) and place.inside:
        return "a system of equations for each position"
    repeats = place.block is not None and place.block not in expr.axes
    if is_long(expr, context.sizes) and (place.inside or repeats):
        return "a reduction over a long axis"
    of_keys = place.loop is not None and place.loop in expr.axes
    if not of_keys or (place.block is not None and not repeats):
        return None
    if not expr.axes & roles.features or _is_made(expr, context):
        return None
    if _is_costly(expr, context, roles):
        return "each block of queries would compute it again"
    return None


def _is_made(expr: Expr, context: Context) -> bool:
    """Whether it is in a buffer, or of a pair: nothing that could be stored."""
    if isinstance(expr, Ref) and expr.name in context.buffers:
        return True
    return any(isinstance(n, Ref) and n.name in ("score", "total") for n in walk(expr))


def compared_with_its_extreme(expr: Expr) -> tuple[Expr, Reduce] | None:
    """(x, its maximum or minimum) of ``x == max(x, T)``: where the extreme is, in a derivative."""
    match expr:
        case Call("eq" | "ne" | "ge" | "le" | "gt" | "lt", (a, b)):
            for x, other in ((a, b), (b, a)):
                extreme = other.x if isinstance(other, Read) else other
                if isinstance(extreme, Reduce) and extreme.op in ("max", "min") and extreme.x == x:
                    return x, extreme
    return None


# Functions whose result is one of their arguments, or as exact as these are.
_EXACT = frozenset("min max neg abs where clip relu detach sign floor ceil round".split())


def is_exact(expr: Expr) -> bool:
    """Whether no kernel can make another number of an expression than any other kernel."""
    return all(
        isinstance(node, Literal | Ref | Read | Index | Size | Scalar)
        or (isinstance(node, Call) and (node.fn in _EXACT or node.kind is not Kind.REAL))
        for node in walk(expr)
    )


def is_long(expr: Expr, fixed: Container[str]) -> bool:
    """A reduction over an axis that no tile holds: one that is not ``fixed``."""
    return isinstance(expr, Reduce) and any(d not in fixed for d in expr.over)


def _is_costly(expr: Expr, context: Context, roles: DimRoles) -> bool:
    """Whether an expression does more than loads and a few operations per element.

    A norm does not: it is one number per key, which costs little beside the key's product with
    a whole block of queries. Nor does what is stored by itself.
    """
    if is_long(expr, context.sizes) or running_sum(expr, context.sizes) is not None:
        return False
    heavy = isinstance(expr, Reduce | Cumsum)
    heavy = heavy or (isinstance(expr, Call) and expr.fn in TRANSCENDENTAL)
    if heavy and expr.axes & roles.features:
        return True
    return any(_is_costly(child, context, roles) for child in expr.children)


def spreads_heads(read: Read, context: Context) -> bool:
    """Whether a read only spreads groups over their heads."""
    return all((d, *e.axes) in context.heads for d, e in read.at)


def is_cheaper_where_read(read: Read, context: Context, roles: DimRoles) -> bool:
    """Whether computing a reduction only where it is read is cheaper, and possible."""
    if any(isinstance(node, Cumsum) for node in walk(read.x)):
        return False
    free = frozenset[str]().union(*(e.axes for _, e in read.at))
    bound = {dim for node in walk(read.x) if isinstance(node, Reduce) for dim in node.over}
    if bound & (free | {d for d, _ in read.at}):
        return False
    if spreads_heads(read, context):
        return True
    if free & read.x.axes:
        return False
    return roles.cost(read.axes) < roles.cost(read.x.axes)


def tests_of_range(dim: str, index: Expr, context: Context) -> list[Expr]:
    """What says that an index is a place of an axis; nothing where it always is."""
    equal = context.equal
    match index:
        case Index(other) if equal.get(other, other) == equal.get(dim, dim):
            return []
        case Call("floordiv", (Index(head), _)) if (dim, head) in context.heads:
            return []
    below = call("lt", index, Size(dim))
    return [below] if is_nonnegative(index, context.masks) else [call("ge", index, 0), below]


__all__ = [
    "Place",
    "is_cheaper_where_read",
    "is_long",
    "reason_to_store",
    "spreads_heads",
    "tests_of_range",
]
