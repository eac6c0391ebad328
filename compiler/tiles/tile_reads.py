"""Values on the tile read at other positions than their own: nothing of them is in memory."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.errors import UnsupportedError
from ...ir.expression import Expr, Index, Ref
from ...ir.tile import DType, Tile, Value
from .evaluator import Evaluator, number_in


def read_from_tile(
    evaluator: Evaluator, x: Ref, at: Mapping[str, Expr], fill: float, hint: str
) -> Value:
    """``x`` at the positions ``at``: an axis renamed, or picked out by a sum."""
    value = evaluator.builder.lookup(x)
    if value is None:
        raise UnsupportedError(f"nothing computes {x.name}")
    for dim, index in at.items():
        if dim not in value.axes:
            continue
        match index:
            case Index(other) if other not in x.axes and _is_twin(evaluator, dim, other):
                value = evaluator.builder.rename(value, dim, other, hint)
            case _:
                value = _picked(evaluator, value, dim, index, fill, hint)
    return value


def _is_twin(evaluator: Evaluator, dim: str, other: str) -> bool:
    """Whether two axes of tiles have the same positions; a loop may take one of them at a time."""
    if not evaluator.tile_axes([other]):
        return False
    tile = evaluator.builder.tiles.get(other)
    if tile is not None and tile.like == dim:
        return True
    return evaluator.context.length(dim) == evaluator.context.length(other) is not None


def _picked(
    evaluator: Evaluator, value: Value, dim: str, index: Expr, fill: float, hint: str
) -> Value:
    """The element of ``value`` at ``index`` along ``dim``: a sum that admits that one."""
    builder, size = evaluator.builder, evaluator.context.length(dim)
    if size is None:
        raise UnsupportedError(f"a value on the tile is read along {dim} at {index}")
    twin = f"{dim}_from"
    if not builder.has_position(twin):
        builder.tiles[twin] = Tile(twin, builder.tiles[dim].block, True, size)
        builder.scopes[0].positions[twin] = builder.range(twin, None, twin.lower())
    moved = builder.rename(value, dim, twin)
    place = evaluator.integer(index)
    here = builder.elementwise("eq", builder.position(twin), place, dtype=DType.BOOL)
    zero = builder.constant(number_in(0, value.dtype), value.dtype)
    picked = builder.reduce("sum", evaluator.where(here, moved, zero), twin, hint)
    inside = evaluator.inside(index, dim)
    if inside is None or fill == 0:
        return picked
    if not value.dtype.is_float and not float(fill).is_integer():
        picked = builder.cast(picked, DType.FLOAT32)
    outside = builder.constant(number_in(fill, picked.dtype), picked.dtype)
    return evaluator.where(inside, picked, outside, hint)
