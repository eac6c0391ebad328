"""A tile gone through position by position: each row of what it holds is picked out by a sum.

    sum(weight[I, J] * (1 - tanh(q[I, D] + k[J, D]) ** 2), I), of blocks of I and J and all of D
    --> for i of the block: weight[i, J] * (1 - tanh(q[i, D] + k[J, D]) ** 2), added up

Where a product of three axes is reduced along one, no tile of three is held: what is in memory is
read at the row, and of what only the tile has the row is picked, at the price of a tile of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod

from ...ir.expression import Cumsum, Expr, Kind, Read, Reduce, Ref, Solve
from ...ir.rewriting import bound_axes
from ...ir.targets import CpuTarget
from ...ir.tile import DType, Value
from .evaluator import Evaluator
from .scope import Loop

# Elements of a tile that a program on a GPU holds: 64 registers of each of 128 threads.
_HELD = 8192


def is_too_deep(evaluator: Evaluator, axes: frozenset[str]) -> bool:
    """Whether a tile with ``axes``, three or more, is more than a program on a GPU holds."""
    if isinstance(evaluator.context.target, CpuTarget) or len(axes) < 3:
        return False
    tiles, blocks = evaluator.builder.tiles, evaluator.context.blocks
    return prod(tiles[d].block if d in tiles else blocks.get(d, 64) for d in axes) > _HELD


@contextmanager
def row_by_row(
    evaluator: Evaluator, exprs: Sequence[Expr], dim: str, carried: tuple[str, Value]
) -> Iterator[tuple[Loop, Value | None]]:
    """A loop over the block of ``dim`` on the tile, with ``exprs`` to be had of one row at a time.

    Gives the loop, and whether its row exists; None: all do.
    """
    builder = evaluator.builder
    position, bound = builder.position(dim), builder.bound(dim)
    zero = builder.constant(0, DType.INT32)
    first = zero if evaluator.context.length(dim) is not None else builder.begin(dim)
    on_tile = {e: evaluator.real(e) for expr in exprs for e in _only_on_tile(evaluator, expr, dim)}
    name = f"{dim.lower()}_row"
    with builder.loop(name, zero, builder.block(dim), 1, [carried]) as loop:
        row = builder.elementwise("add", first, loop.variable, dtype=DType.INT32, hint=name)
        here = builder.elementwise("eq", position, row, dtype=DType.BOOL, hint="here")
        nothing = builder.constant(0.0, DType.FLOAT32)
        picked = {
            expr: builder.reduce("sum", evaluator.where(here, tile, nothing), dim, "picked")
            for expr, tile in on_tile.items()
        }
        exists = None
        if bound is not None:
            size = evaluator.size(dim)
            exists = builder.elementwise("lt", row, size, dtype=DType.BOOL, hint="row_exists")
        builder.place(dim, row, exists)
        for expr, value in picked.items():
            builder.bind(expr, value, here=True)
        yield loop, exists


def settle(evaluator: Evaluator, exprs: Sequence[Expr], dim: str) -> None:
    """Reductions of what is about to be stepped through that run over ``dim`` themselves, or lack
    it: before, each once."""

    def visit(expr: Expr, bound: frozenset[str]) -> None:
        if isinstance(expr, Reduce):
            same = dim not in expr.axes and bound.isdisjoint(expr.axes)
            if same or dim in expr.over:
                evaluator.evaluate(expr)
                return
        for child in expr.children:
            visit(child, bound.union(bound_axes(expr)))

    for expr in exprs:
        visit(expr, frozenset())


def _only_on_tile(evaluator: Evaluator, expr: Expr, dim: str) -> Iterator[Expr]:
    """The parts of ``expr`` along ``dim`` that are in no buffer, or take all positions to make."""
    if dim not in expr.axes:
        return
    match expr:
        case Ref(name):
            if name not in evaluator.context.buffers:
                yield expr
        case Reduce() | Cumsum() | Solve():
            yield expr
        case Read():
            yield from () if isinstance(expr.x, Ref) else (expr,)
        case _ if expr.kind is Kind.REAL and evaluator.builder.lookup(expr) is not None:
            if len(evaluator.tile_axes(expr.axes)) < 3:
                yield expr
                return
            yield from _of_children(evaluator, expr, dim)
        case _:
            yield from _of_children(evaluator, expr, dim)


def _of_children(evaluator: Evaluator, expr: Expr, dim: str) -> Iterator[Expr]:
    for child in expr.children:
        yield from _only_on_tile(evaluator, child, dim)


__all__ = ["is_too_deep", "row_by_row", "settle"]
