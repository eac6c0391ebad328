"""Cells whose step multiplies a state by weights: the batch is the rows of a product.

``sum(R * h[D=p], P)`` with R[D, P] and h[B, D] is a product of a matrix with a vector for each
position of B, which reads all of R. For a block of positions it is one of two matrices, which
reads it once: registers and tensor cores then have something to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

from ...ir.errors import UnsupportedError
from ...ir.recurrence_tasks import LoopTask
from ...ir.tile import Dot, For, Program, Value, all_ops, made_by
from ..tiles.context import Context

ROWS = 16  # the fewest that tensor cores take
_AXES = 2  # of a tile that registers hold


def by_products(
    task: LoopTask, context: Context, rows: Callable[[LoopTask, Context], Program]
) -> Program | None:
    """The program with blocks of rows along one of the task's positions.

    ``rows`` makes a program with given blocks. None where no sum of a row becomes a product by it,
    where a tile would have three axes, or the weights take more bytes than the context allows.
    """
    if task.tiled:
        return None
    heads = {dim for pair in context.heads for dim in pair}
    for dim in reversed([d for d in task.positions if d not in heads]):
        others = tuple(d for d in task.positions if d != dim)
        wide = replace(task, positions=others, tiled=(dim,))
        try:
            made = rows(wide, context.with_blocks({dim: ROWS}))
        except UnsupportedError:
            continue
        if _multiplies(made, dim, context.target.weight_bytes):
            return made
    return None


def _multiplies(program: Program, rows: str, weight_bytes: int) -> bool:
    """Whether a program's rows are those of products with weights, in tiles of two axes."""
    if any(len(v.axes) > _AXES for op in all_ops(program.body) for v in made_by(op)):
        return False
    loops = [op for op in program.body if isinstance(op, For)]
    inside = [op for loop in loops for op in all_ops(loop.body)]
    dots = [op for op in inside if isinstance(op, Dot) and rows in op.out.axes]
    weights = {v for dot in dots for v in (dot.a, dot.b) if rows not in v.axes}
    made = {v for op in inside for v in made_by(op)}
    needed = sum(_bytes(program, weight) for weight in weights - made)
    return 0 < needed <= weight_bytes


def _bytes(program: Program, value: Value) -> int:
    return prod(program.tile(dim).block for dim in value.axes) * value.dtype.size_bytes
