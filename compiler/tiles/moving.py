"""A read of a computed value, pushed to the tensors that the value is computed from."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

from ...ir.expression import Cumsum, Expr, Index, Read, Reduce, Ref
from ...ir.rewriting import rebuild


def move(x: Expr, at: Mapping[str, Expr]) -> Expr:
    """``Read(x, at)`` with the read pushed to the tensors below; what lies outside is arbitrary."""
    match x:
        case Index(dim):
            return at.get(dim, x)
        case Ref(_, dims, _):
            here = tuple((d, e) for d, e in at.items() if d in dims)
            return Read(x, here) if here else x
        case Read(inner, inner_at, fill):
            indices = {d: move(e, at) for d, e in inner_at}
            for dim, index in at.items():
                if dim in inner.axes and dim not in indices:
                    indices[dim] = index
            return Read(inner, tuple(indices.items()), fill, span=x.span)
        case Reduce() | Cumsum():
            at = {d: e for d, e in at.items() if d in x.axes}
            if captures(x, at):
                return Read(x, tuple(at.items()))
    return rebuild(x, lambda child: move(child, at))


def without_groups(expr: Expr, heads: Container[tuple[str, ...]]) -> Expr:
    """Without the reads that spread groups over their ``heads``: a program has one of each."""
    if isinstance(expr, Read):
        kept = tuple((d, e) for d, e in expr.at if (d, *e.axes) not in heads)
        if len(kept) < len(expr.at):
            inner = without_groups(expr.x, heads)
            return replace(expr, x=inner, at=kept) if kept else inner
    return rebuild(expr, lambda child: without_groups(child, heads))


def captures(x: Expr, at: Mapping[str, Expr]) -> bool:
    """Whether the positions read mention an axis that means another thing inside of ``x``."""
    match x:
        case Reduce(over=over):
            bound = {*over}
        case Cumsum(over=one):
            bound = {one}
        case _:
            return False
    free = frozenset[str]().union(*(e.axes for d, e in at.items() if d in x.axes))
    return bool(bound & (free | (set(at) & x.axes)))
