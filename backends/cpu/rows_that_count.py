"""Rows of a tile that nothing stores: products go without them.

    for a block of a list: o[rows of the block] = ... where slot < count
    -->  columns or rows of a product from ``count - start`` on are not made

All that is done along the axis is done position by position, so that what is at one position of it
reaches no other; and every store ends at one count.
"""

from __future__ import annotations

from ...ir.tile import (
    Cast,
    Comment,
    Constant,
    Dot,
    Elementwise,
    For,
    Load,
    Op,
    Range,
    Reduce,
    Store,
    Value,
    all_ops,
    made_by,
    operands,
)
from .kernel_scope import KernelScope


def rows_that_count(kernel: KernelScope, loop: For) -> dict[str, str]:
    """How many positions of an axis count in a turn of a loop, as text, by axis."""
    body = list(all_ops(loop.body))
    axes = {axis for op in body for value in made_by(op) for axis in value.axes}
    handed = {axis for carried in loop.carried for axis in carried.inner.axes}
    found = {axis: _count(kernel, body, axis) for axis in sorted(axes - handed)}
    return {
        axis: f"mx::clip({count}, {kernel.blocks[axis]})" for axis, count in found.items() if count
    }


def _count(kernel: KernelScope, body: list[Op], axis: str) -> str | None:
    counts = set[str | None]()
    for op in body:
        match op:
            case Store(_, index, value, mask):
                if axis in frozenset[str]().union(value.axes, *(v.axes for _, v in index)):
                    counts.add(None if mask is None else _end(kernel, mask, axis))
            case Reduce(_, _, _, over) | Dot(over=over) if over == axis:
                return None
            case Reduce() | Dot() | Elementwise() | Cast() | Load() | For() | Range() | Constant():
                pass
            case Comment():
                pass
            case _ if any(axis in value.axes for value in operands(op)):
                return None
    return counts.pop() if len(counts) == 1 else None


def _end(kernel: KernelScope, mask: Value, axis: str) -> str | None:
    """Where a mask ends along an axis, if numbers that are there already say so."""
    if not all(_is_there(kernel, number) for number in _numbers(kernel, mask)):
        return None
    extent = kernel.reader.extent(mask)
    if extent is None or axis in extent.firsts:
        return None
    return extent.counts.get(axis)


def _numbers(kernel: KernelScope, value: Value) -> list[Value]:
    """The values without axes of which a mask is made."""
    if not value.axes:
        return [value]
    maker = kernel.fusion.makers.get(value.name)
    args = () if maker is None or isinstance(maker, Load | For) else operands(maker)
    return [number for arg in args for number in _numbers(kernel, arg)]


def _is_there(kernel: KernelScope, number: Value) -> bool:
    return number.name in kernel.scalars or isinstance(
        kernel.fusion.makers.get(number.name), Constant
    )


__all__ = ["rows_that_count"]
