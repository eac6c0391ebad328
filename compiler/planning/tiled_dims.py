"""Which dims of a result its programs cut into tiles."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import combinations

from ...ir.expression import Expr, Reduce
from ...ir.rewriting import walk
from ..tiles.contraction import factors_of


def tiled_dims(
    expr: Expr, order: tuple[str, ...], long: Collection[str], fixed: Collection[str]
) -> list[str]:
    """The dims that a pointwise kernel cuts into tiles: at most two, the last of ``order``.

    Of two, each in other factors of a sum of products where there is one: then a tile is a product
    of matrices.

        sum(q[G, R, T, D] * k[G, N, D], D)  -->  N and T, not R and T

    ``long``: dims worth cutting; ``fixed``: those whose sizes are known, which a tile has whole.
    """
    cut = [d for d in order if d in long and d not in fixed]
    if not cut:
        return [d for d in order if d not in fixed][-1:]
    if any(d in fixed for d in order):
        return cut[-1:]
    pairs = sorted(combinations(cut, 2), key=lambda pair: [order.index(d) for d in pair[::-1]])
    for factors in _sums_of_products(expr, fixed):
        apart = [p for p in pairs if _apart(factors, *p)]
        if apart:
            return list(apart[-1])
    return cut[-2:]


def _sums_of_products(expr: Expr, fixed: Collection[str]) -> Iterator[list[Expr]]:
    """The factors of each sum along dims that a tile has whole: those that the sum runs along."""
    for node in walk(expr):
        if not isinstance(node, Reduce) or node.op != "sum" or node.group:
            continue
        if all(d in fixed for d in node.over):
            yield [f for f in factors_of(node.x) if not f.axes.isdisjoint(node.over)]


def _apart(factors: list[Expr], a: str, b: str) -> bool:
    """Whether some factors have one of the dims, some the other, and none both."""
    with_a, with_b = ([f for f in factors if d in f.axes] for d in (a, b))
    return bool(with_a and with_b) and not any(b in f.axes for f in with_a)


__all__ = ["tiled_dims"]
