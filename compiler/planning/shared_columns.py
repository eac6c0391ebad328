"""Axes of fixed length that programs on a GPU share out, where one would hold too much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from ...ir.expression import Expr, Reduce
from ...ir.rewriting import bound_axes, walk
from ...ir.targets import AnyTarget, CpuTarget
from ..tiles.context import padded

# Elements of a result's fixed axes that a program on a GPU holds beside what they are made of, and
# those that it holds for each of the rows that it cuts or sums up, of which products take 16.
_HELD = 2048
_HELD_BY_ROW = 256
_HELD_IN_SUM = 1024


def is_too_large(
    order: tuple[str, ...], value: Expr, sizes: Mapping[str, int], target: AnyTarget
) -> bool:
    """Whether the fixed axes of a result, or of a long sum in it, are more than a program holds.

    On a GPU: a CPU holds no tile in registers.
    """

    def whole(axes: Iterable[str]) -> int:
        return prod(padded(sizes[dim], 16) for dim in axes if dim in sizes)

    if isinstance(target, CpuTarget):
        return False
    sums = [n for n in walk(value) if isinstance(n, Reduce) and not {*n.over} <= sizes.keys()]
    by_row = bool(sums) or not {*order} <= sizes.keys()
    if whole(order) > (_HELD_BY_ROW if by_row else _HELD):
        return True
    return any(whole(node.axes) > _HELD_IN_SUM for node in sums)


def shared_columns(
    order: tuple[str, ...], value: Expr, sizes: Mapping[str, int], target: AnyTarget
) -> tuple[str, ...]:
    """The longest fixed axis of a result of which nothing in ``value`` sees all; on a CPU none."""
    if isinstance(target, CpuTarget):
        return ()
    bound = {dim for node in walk(value) for dim in bound_axes(node)}
    own = [d for d in order if d in sizes and d not in bound and d in value.axes]
    return tuple(sorted(own, key=lambda dim: sizes[dim])[-1:])


__all__ = ["is_too_large", "shared_columns"]
