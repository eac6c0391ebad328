"""Where a program instance stands: the grid, and what is written from there."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.expression import Index, Literal, Size, call
from ...ir.promises import WholeBlocks
from ...ir.roles import group_of
from ...ir.tile import BufferArgument, DType, GridAxis, Tile, Value
from .builder import Builder
from .context import Context, padded
from .evaluation import TileEvaluator
from .evaluator import Evaluator


def place_grid(
    evaluator: Evaluator, dims: Sequence[str], block: str | None, descending: bool = False
) -> None:
    """Give every dim of ``dims`` a place: ``block`` in tiles, those of fixed length on the tile
    whole, and one position each of the others."""
    builder, context = evaluator.builder, evaluator.context
    for dim in dims:
        name = dim.lower()
        if dim == block:
            fixed = context.length(dim)
            rows = context.blocks.get(dim, 64)
            rows = min(rows, _most_rows(context, dim, rows))
            builder.tiles[dim] = Tile(dim, rows, size=fixed)
            start = builder.grid_position(dim, f"{name}_start")
            builder.grid.append(GridAxis(dim, start, True, descending))
            position = builder.range(dim, start, name)
            builder.place(dim, position, _exists(evaluator, dim, position))
        elif context.length(dim) is None:
            position = builder.grid_position(dim, name)
            builder.grid.append(GridAxis(dim, position))
            builder.place(dim, position)
            evaluator.size(dim)


def _most_rows(context: Context, dim: str, rows: int) -> int:
    """The positions of a dim as a tile holds them, no fewer than a product takes at once: 16, or
    64 from shared memory where the dim is the plan's own. ``rows`` where they are not known."""
    own, fixed = context.ranges.derived.get(dim), context.length(dim)
    if fixed is not None:
        return padded(fixed, 16)
    shared = getattr(context.target, "products_from_shared", False)
    return padded(int(own.value), 64 if shared else 16) if isinstance(own, Literal) else rows


def start_rows(
    name: str,
    context: Context,
    positions: Sequence[str],
    tiled: Sequence[str],
    written: Sequence[str],
) -> Evaluator:
    """A program of a recurrence, its grid placed and the buffers that it fills declared."""
    builder = Builder(name)
    evaluator = TileEvaluator(builder, context)
    place_grid(evaluator, positions, None)
    for dim in tiled:
        place_grid(evaluator, [dim], dim)
    place_groups(evaluator)
    for result in written:
        buffer = context.buffers[result]
        builder.buffer(BufferArgument(result, buffer.dims, buffer.dtype, written=True))
    return evaluator


def from_end(evaluator: Evaluator, dim: str, row: Value, hint: str = "") -> Value:
    """The position as far from the last one of ``dim`` as ``row`` is from the first."""
    builder = evaluator.builder
    one = builder.constant(1, DType.INT32)
    last = builder.elementwise("sub", evaluator.size(dim), one, dtype=DType.INT32)
    return builder.elementwise("sub", last, row, dtype=DType.INT32, hint=hint)


def _exists(evaluator: Evaluator, dim: str, position: Value) -> Value | None:
    """Which positions of a block exist; all, where blocks divide the size (powers of two do)."""
    fixed, builder = evaluator.context.length(dim), evaluator.builder
    if fixed is not None and fixed == padded(fixed, 16):
        builder.promises.add(WholeBlocks(dim, fixed))
        return None
    size, hint = evaluator.size(dim), f"{dim.lower()}_exists"
    return builder.elementwise("lt", position, size, dtype=DType.BOOL, hint=hint)


def place_groups(evaluator: Evaluator) -> None:
    """Where a program has a position of the heads, that of their group: h // (H // G)."""
    for group, heads in sorted(evaluator.context.heads):
        if evaluator.builder.has_position(heads) and not evaluator.builder.has_position(group):
            place = evaluator.integer(group_of(group, heads), group.lower())
            evaluator.builder.place(group, place)


def first_of(evaluator: Evaluator, dims: Sequence[str]) -> Value | None:
    """Whether this program is the first of those that have the same positions of ``dims``."""
    builder, zero = evaluator.builder, evaluator.builder.constant(0, DType.INT32)
    first: Value | None = None
    for axis in builder.grid:
        if axis.dim in dims or builder.shares.get(axis.dim) in dims:
            continue
        place = axis.position
        for group, heads in sorted(evaluator.context.heads):
            if heads == axis.dim and group in dims:
                size = call("floordiv", Size(heads), Size(group))
                place = evaluator.integer(call("mod", Index(heads), size))
        here = builder.elementwise("eq", place, zero, dtype=DType.BOOL, hint="first")
        first = evaluator.both(first, here)
    return first


def store_result(
    evaluator: Evaluator, name: str, value: Value, where: Value | None = None, add: bool = False
) -> None:
    """Write a value to a buffer, each of whose dims is in force, where positions exist.

    ``where``: whether to write, along no other axes than the buffer's places have; ``add``: to what
    is there.
    """
    buffer = evaluator.context.buffers[name]
    index = [(dim, evaluator.position(dim)) for dim in buffer.dims]
    mask = evaluator.both(where, evaluator.bounds_of(buffer.dims))
    evaluator.builder.store(name, index, evaluator.builder.cast(value, buffer.dtype), mask, add)
