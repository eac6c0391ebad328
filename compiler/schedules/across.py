"""Sums along the rows of an attention: results for keys, which grow from one block of rows to the
next.

A program takes all rows of its heads in turn, and adds what a block of them gives to results in
memory, which no other program touches. So what both sides of a pair get, as the gradients of
queries and of keys do, comes of one look at the pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...ir.task import AttentionTask
from ...ir.tile import DType, Tile
from ..tiles.evaluator import Evaluator
from ..tiles.grid import store_result


@contextmanager
def rows_in_turn(evaluator: Evaluator, task: AttentionTask) -> Iterator[None]:
    """Within: one block of the rows. Before the first, the sums along the rows are set to 0."""
    zeros_first(evaluator, task)
    with _blocks(evaluator, task.block):
        evaluator.builder.in_turn.add(task.block)
        yield


def zeros_first(evaluator: Evaluator, task: AttentionTask) -> None:
    """Set the sums along the rows to 0."""
    with _blocks(evaluator, task.over):
        _store_zeros(evaluator, task)


@contextmanager
def _blocks(evaluator: Evaluator, dim: str) -> Iterator[None]:
    builder, name = evaluator.builder, dim.lower()
    tile = builder.tiles.setdefault(dim, Tile(dim, evaluator.context.blocks.get(dim, 64)))
    zero, size = builder.constant(0, DType.INT32), evaluator.size(dim)
    with builder.loop(f"{name}_start", zero, size, tile.symbol, []) as loop:
        position = builder.range(dim, loop.variable, name)
        exists = builder.elementwise("lt", position, size, dtype=DType.BOOL, hint=f"{name}_exists")
        builder.place(dim, position, exists)
        builder.comment(f"a block of {dim}")
        yield
        loop.yields = ()


def _store_zeros(evaluator: Evaluator, task: AttentionTask) -> None:
    for name, _ in task.across:
        dims = evaluator.context.buffers[name].dims
        axes = evaluator.tile_axes(dims)
        zero = evaluator.builder.constant(0.0, DType.FLOAT32, axes)
        store_result(evaluator, name, zero)
