"""Tiles that a loop nest reads where they lie in memory, or writes there: no copy beside them.

    x_tile = copy of x[rows, columns];  y_tile = f(x_tile);  y[rows, columns] = copy of y_tile
    -->  y[rows, columns] = f(x[rows, columns])

A whole tile whose rows have their numbers side by side lies as a nest wants it. At the edges of a
tensor, and with other strides, it goes through a copy: a pointer is to the one or to the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.tile import Constant, DType, Load, Op, Store, Value, all_ops, operands
from .functions import MEMORY_TYPE
from .fusion import Nest
from .kernel_scope import Array, KernelScope
from .layout import contiguous
from .memory import Access


def is_read_in_place(kernel: KernelScope, op: Load) -> bool:
    """Whether one nest alone reads a tile, each number once, and nothing writes the tensor."""
    ops = all_ops(kernel.program.body)
    written = any(isinstance(o, Store) and o.buffer == op.buffer for o in ops)
    if written or not _fits(kernel, op, op.out):
        return False
    nests = [_nest_of(kernel, reader) for reader in kernel.fusion.chain_readers(op.out.name)]
    first = nests[0] if nests else None
    if first is None or any(nest is not first for nest in nests):
        return False
    return _is_over(kernel, first, op.out)


def stored_in_place(kernel: KernelScope, nest: Nest, value: Value) -> Store | None:
    """The store that is all that comes of what a nest makes, where the nest can do it."""
    readers = kernel.fusion.chain_readers(value.name)
    others = [op for op in readers if _nest_of(kernel, op) is not nest]
    if len(others) != 1 or not isinstance(store := others[0], Store) or store.add:
        return None
    ops = all_ops(kernel.program.body)
    same = [o for o in ops if isinstance(o, Load | Store) and o.buffer == store.buffer]
    if len(same) != 1 or store.value != value or not _fits(kernel, store, value):
        return None
    known = all(_is_known(kernel, v) for v in operands(store) if v != value)
    return store if known and _is_over(kernel, nest, value) and _is_here(kernel, store) else None


def _fits(kernel: KernelScope, op: Load | Store, value: Value) -> bool:
    """Whether a tile is one of reals, in vectors as in memory, and wanted in no other form."""
    dtype = kernel.program.buffers[op.buffer].dtype
    of_reals = value.dtype.is_float and dtype.is_float and value.dtype in (dtype, DType.FLOAT32)
    if len(value.axes) != 2 or not of_reals or kernel.operand_forms.get(value.name):
        return False
    axes = kernel.layout.of(value)
    return kernel.in_vectors(axes) and contiguous(op) == axes[-1]


def _nest_of(kernel: KernelScope, op: Op) -> Nest | None:
    out = getattr(op, "out", None)
    return kernel.fusion.nest_of.get(out.name) if isinstance(out, Value) else None


def _is_over(kernel: KernelScope, nest: Nest, value: Value) -> bool:
    """Whether a nest goes over a tile once, in the body at hand."""
    return nest.axes == value.axes and _is_here(kernel, nest.sinks[0])


def _is_here(kernel: KernelScope, op: Op) -> bool:
    return kernel.fusion.loops_around(op) == kernel.loops_around


def _is_known(kernel: KernelScope, value: Value) -> bool:
    """Whether the numbers that an index or a mask is made of are in the text already."""
    maker = kernel.fusion.makers.get(value.name)
    if not value.axes:
        return value.name in kernel.scalars or isinstance(maker, Constant)
    return maker is not None and all(_is_known(kernel, v) for v in operands(maker))


def bind_in_memory(
    kernel: KernelScope, op: Load | Store, value: Value, access: Access, whole: Sequence[str]
) -> tuple[str, str]:
    """Let a tile be where it lies in memory; gives an array in its stead and a condition for that.

    ``whole``: the conditions on which all of the tile is there.
    """
    kind = MEMORY_TYPE[kernel.program.buffers[op.buffer].dtype]
    const = "const " if isinstance(op, Load) else ""
    row, column = kernel.layout.of(value)
    name, stride = kernel.fresh(f"{value.name}_at"), kernel.fresh(f"{value.name}_row")
    copy, apart = kernel.fresh(f"{value.name}_copy"), kernel.fresh(f"{value.name}_apart")
    kernel.local(kind, copy, kernel.size((row, column)))
    there = " && ".join([f"{access.strides[column]} == 1", *whole])
    kernel.add(f"const bool {apart} = !({there});")
    kernel.add(f"{const}{kind}* const {name} = {apart} ? {copy} : {access.pointer};")
    kernel.add(
        f"const int64_t {stride} = {apart} ? {kernel.blocks[column]} : {access.strides[row]};"
    )
    kernel.arrays[value.name] = Array(name, (row, column), stride)
    return copy, apart


__all__ = ["bind_in_memory", "is_read_in_place", "stored_in_place"]
