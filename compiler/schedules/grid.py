"""Where a program instance stands: the grid, and what is written from there."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.tile import DType, GridAxis, Tile, Value
from .evaluation import Evaluator


def place_grid(
    evaluator: Evaluator, dims: Sequence[str], block: str | None, descending: bool = False
) -> None:
    """Give every dim of ``dims`` a place: ``block`` in tiles, those of fixed length on the tile
    whole, and one position each of the others."""
    builder, context = evaluator.builder, evaluator.context
    for dim in dims:
        name = dim.lower()
        if dim == block:
            builder.tiles[dim] = Tile(dim, context.blocks.get(dim, 64))
            start = builder.grid_position(dim, f"{name}_start")
            builder.grid.append(GridAxis(dim, start, True, descending))
            position = builder.range(dim, start, name)
            size = evaluator.size(dim)
            bound = builder.elementwise(
                "lt", position, size, dtype=DType.BOOL, hint=f"{name}_exists"
            )
            builder.place(dim, position, bound)
        elif context.length(dim) is None:
            position = builder.grid_position(dim, name)
            builder.grid.append(GridAxis(dim, position))
            builder.place(dim, position)
            evaluator.size(dim)


def store_result(evaluator: Evaluator, name: str, value: Value) -> None:
    """Write a value to a buffer, each of whose dims is in force, where positions exist."""
    buffer = evaluator.context.buffers[name]
    index = [(dim, evaluator.position(dim)) for dim in buffer.dims]
    mask = evaluator.bounds_of(buffer.dims)
    evaluator.builder.store(name, index, evaluator.builder.cast(value, buffer.dtype), mask)
