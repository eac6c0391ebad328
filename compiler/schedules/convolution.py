"""The schedule of a long sum over lags: a program per row, and per block of its channels."""

from __future__ import annotations

from ...ir.task import ConvolutionTask
from ...ir.tile import BufferArgument, Convolve, GridAxis, Program, Tile, Value
from ..tiles.builder import Builder
from ..tiles.context import Context
from ..tiles.evaluation import TileEvaluator

LANES = 32  # channels of a program: lines of a cache side by side, and what the widest vectors hold


def convolution(task: ConvolutionTask, context: Context) -> Program:
    """The tile program that fills a result: one op, which a backend's runtime has."""
    builder = Builder(task.name)
    evaluator = TileEvaluator(builder, context)
    result = context.buffers[task.result]
    for ref in (task.kernel, task.signal):
        buffer = context.buffers[ref.name]
        builder.buffer(BufferArgument(buffer.name, buffer.dims, buffer.dtype))
    builder.buffer(BufferArgument(result.name, result.dims, result.dtype, written=True))
    index: list[tuple[str, Value]] = []
    for dim in (d for d in result.dims if d != task.row):
        tiled = dim == task.lanes
        place = builder.grid_position(dim, f"{dim.lower()}_start" if tiled else dim.lower())
        builder.grid.append(GridAxis(dim, place, tiled))
        evaluator.size(dim)
        index.append((dim, place))
    if task.lanes is not None:
        builder.tiles[task.lanes] = Tile(task.lanes, LANES, size=context.length(task.lanes))
    offset = evaluator.integer(task.offset, "offset")
    walked = dict.fromkeys((task.row, task.lag, task.over, *task.summed, *_one(task.lanes)))
    op = Convolve(
        task.result,
        task.kernel.name,
        task.signal.name,
        task.row,
        task.lag,
        task.over,
        task.row_sign,
        task.lag_sign,
        offset,
        tuple(index),
        tuple((dim, evaluator.size(dim)) for dim in walked),
        task.summed,
        task.lanes,
    )
    builder.scopes[0].ops.append(op)
    return builder.finish(about=task.about)


def _one(dim: str | None) -> tuple[str, ...]:
    return () if dim is None else (dim,)


__all__ = ["convolution"]
