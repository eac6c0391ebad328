"""Tiles whose rows lie where an index says, neighbours in a row side by side: row by row.

Rows are brought together in a copy of the memory's own type, and go on from there as a tile that
lies in memory; results go back to where each row was.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.tile import DType, Load, Store, Value
from .functions import MEMORY_TYPE
from .kernel_scope import KernelScope
from .memory import Access

_COPIED = {2: "uint16_t", 4: "float"}  # by the bytes of an element


def gathered(kernel: KernelScope, op: Load) -> Access | None:
    """The access of a copy that has been made of the rows; None where they are no such ones."""
    dtype = kernel.program.buffers[op.buffer].dtype
    found = _rows(kernel, op, op.out)
    if found is None or op.fill != 0 or not dtype.is_float:
        return None
    axis, other, arguments = found
    copy = kernel.fresh(f"{op.out.name}_gathered")
    kernel.local(_COPIED[dtype.size_bytes], copy, kernel.size((axis, other)))
    kind = MEMORY_TYPE[dtype]
    pointer = f"({kind}*){copy}"
    kernel.add(f"mx::gather_rows<{_sizes(kernel, axis, other)}>({pointer}, {arguments});")
    strides = {axis: str(kernel.blocks[other]), other: "1"}
    return Access(f"({kind} const*){copy}", strides, {})


def gathered_in_place(kernel: KernelScope, op: Load) -> bool:
    """Whether rows have been brought into the tile's own array, as all that reads it wants them."""
    found = _rows(kernel, op, op.out)
    if found is None or op.fill != 0 or op.out.dtype is not DType.FLOAT32:
        return False
    axis, other, arguments = found
    asked = kernel.operand_forms.get(op.out.name)
    if asked or not kernel.needs_plain(op.out) or kernel.layout.of(op.out) != (axis, other):
        return False
    array = kernel.declare(op.out)
    kernel.add(f"mx::gather_rows<{_sizes(kernel, axis, other)}>({array.name}, {arguments});")
    return True


def scattered(kernel: KernelScope, op: Store, array: str) -> bool:
    """Whether the rows of ``array`` have been brought, or added, to where an index says."""
    found = _rows(kernel, op, op.value)
    if found is None or kernel.program.buffers[op.buffer].dtype is not DType.FLOAT32:
        return False
    axis, other, arguments = found
    if kernel.layout.of(op.value) != (axis, other):
        array = _turned(kernel, op.value, array, axis, other)
    sizes = f"{_sizes(kernel, axis, other)}, {str(op.add).lower()}"
    kernel.add(f"mx::put_rows<{sizes}>({array}, {arguments});")
    return True


def _turned(kernel: KernelScope, value: Value, array: str, axis: str, other: str) -> str:
    """A copy with its rows one after the other, as they are brought away."""
    copy = kernel.fresh(f"{value.name}_turned")
    kernel.local("float", copy, kernel.size((axis, other)))
    rows, columns = kernel.blocks[axis], kernel.blocks[other]
    sizes = _sizes(kernel, other, axis)
    kernel.add(f"mx::store_tile<{sizes}>({copy}, {array}, 1, {columns}, {columns}, {rows});")
    return copy


def _sizes(kernel: KernelScope, axis: str, other: str) -> str:
    return f"{kernel.blocks[axis]}, {kernel.blocks[other]}"


def _rows(kernel: KernelScope, op: Load | Store, tile: Value) -> tuple[str, str, str] | None:
    """The axis of the rows and that in a row, and where they lie, as the runtime takes it."""
    moving = [(d, v) for d, v in op.index if v.axes and kernel.reader.affine(v) is None]
    if len(moving) != 1 or len(tile.axes) != 2 or len(moving[0][1].axes) != 1:
        return None
    ((dim, index),) = moving
    (axis,) = index.axes
    rest = replace(op, index=tuple(pair for pair in op.index if pair[0] != dim))
    access = kernel.reader.access(rest)
    if access is None or access.firsts or {*access.strides, axis} != tile.axes:
        return None
    (other,) = access.strides
    if other == axis or index.name not in kernel.arrays or index.dtype is not DType.INT32:
        return None
    counts = [
        f"mx::clip({access.counts[a]}, {kernel.blocks[a]})"
        if a in access.counts
        else str(kernel.blocks[a])
        for a in (axis, other)
    ]
    if access.whether:
        counts[0] = f"({' && '.join(access.whether)}) ? {counts[0]} : 0"
    steps = [f"{op.buffer}_stride_{dim}", access.strides[other]]
    return axis, other, ", ".join([access.pointer, kernel.array(index).name, *steps, *counts])


__all__ = ["gathered", "scattered"]
