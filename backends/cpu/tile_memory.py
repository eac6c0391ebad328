"""Loads, stores and searches as C++: tiles between memory and local arrays.

An affine access becomes one call of the runtime with a stride per axis; a dot's operand is
packed as the dot reads it, or read where it lies; anything else goes element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ...ir.tile import DType, Elementwise, For, Load, Search, Store, Value
from .compaction import compacted
from .functions import ARRAY_TYPE, MEMORY_TYPE, Text, write_number
from .gathered_rows import gathered, gathered_in_place, scattered
from .in_place import bind_in_memory, is_read_in_place
from .kernel_scope import Array, KernelScope
from .memory import Access
from .nest import NestText, declared
from .products import declare_form, pack_operands

_ROWS_AHEAD = 8  # two microseconds, some times the latency of memory
_L1_BYTES = 24 << 10  # of 32 KB, for states and rows ahead: the others are a row's own

Axes = tuple[str | None, ...]  # of a tile as rows and columns; None: a single one


def write_load(kernel: KernelScope, op: Load) -> None:
    """Bring a tile into the forms that its readers want."""
    if not op.out.axes:
        _load_number(kernel, op)
        return
    access = kernel.reader.access(op) if len(op.out.axes) <= 2 else None
    if access is None and gathered_in_place(kernel, op):
        pack_operands(kernel, op.out)
        return
    in_place = access is not None and is_read_in_place(kernel, op)
    access = access or gathered(kernel, op)
    flags = op.out.dtype is DType.BOOL and access is not None and bool(access.firsts)
    if access is None or set(access.strides) != set(op.out.axes) or flags:
        kernel.declare(op.out)
        _gather(kernel, op)
        pack_operands(kernel, op.out)
        return
    if in_place:
        _load_in_place(kernel, op, access)
        return
    if access.firsts:
        _load_part(kernel, op, access)
        pack_operands(kernel, op.out)
        return
    if kernel.needs_plain(op.out):
        _load_plain(kernel, op, access)
    for form, over in sorted(kernel.operand_forms.get(op.out.name, ())):
        _LOAD_FORMS[form](kernel, op, access, over)


def _load_number(kernel: KernelScope, op: Load) -> None:
    terms = [f"int64_t({kernel.scalar(v).code}) * {op.buffer}_stride_{d}" for d, v in op.index]
    code = f"mx::widen({op.buffer}[{' + '.join(terms) or '0'}])"
    if op.mask is not None:
        fill = write_number(op.fill, op.out.dtype)
        code = f"{kernel.scalar(op.mask).code} ? {code} : {fill}"
    kernel.declare_scalar(op.out, code)


def _load_in_place(kernel: KernelScope, op: Load, access: Access) -> None:
    """A tile that its nest reads in memory, or in a copy where it is not whole there."""
    absent = [f"{first} <= 0" for first in access.firsts.values()]
    whole = [*_whole(kernel, access), *absent]
    copy, apart = bind_in_memory(kernel, op, op.out, access, whole)
    kernel.bodies.append([])
    kind = MEMORY_TYPE[kernel.program.buffers[op.buffer].dtype]
    _load_copy(kernel, op, access, Array(copy, kernel.layout.of(op.out)), kind)
    kernel.add_inside(f"if ({apart}) {{", kernel.bodies.pop())


def _load_plain(kernel: KernelScope, op: Load, access: Access) -> None:
    array = kernel.declare(op.out)
    _load_copy(kernel, op, access, array)
    if len(array.axes) == 1:
        _prefetch(kernel, op, access)


def _load_part(kernel: KernelScope, op: Load, access: Access) -> None:
    """A tile of which the first positions may be missing, too: a read at another place."""
    _load_copy(kernel, op, access, kernel.declare(op.out))


def _load_copy(
    kernel: KernelScope, op: Load, access: Access, to: Array, kind: str = "float"
) -> None:
    """Copy a tile to an array; ``kind``: of its numbers, where they are reals."""
    axes: Axes = to.axes if len(to.axes) == 2 else (None, *to.axes)
    fill = write_number(op.fill, op.out.dtype)
    if not op.out.dtype.is_float:
        sign = "-" if op.out.dtype is DType.BOOL else ""
        fill = f"{sign}{ARRAY_TYPE[op.out.dtype]}({fill})"
    elif kind != "float":
        fill = f"mx::narrow<{kind}>({fill})"
    if access.firsts:
        firsts = ["0" if a is None else _clipped(kernel, access.firsts, a, "0") for a in axes]
        _tile_call(kernel, "load_part", to.name, access, axes, *firsts, fill)
        return
    name = "load_flags" if op.out.dtype is DType.BOOL else "load_tile"
    _tile_call(kernel, name, to.name, access, axes, fill)


def _prefetch(kernel: KernelScope, op: Load, access: Access) -> None:
    """Ask for a later row: rows that others lie between are more than the hardware foresees."""
    for dim, value in op.index:
        way = 0 if kernel.row is None else _moves_with(kernel, value, kernel.row)
        if way:
            ahead = f"{access.pointer} + {way * _ROWS_AHEAD} * {op.buffer}_stride_{dim}"
            near = "" if kernel.rows_fit else ", 2"
            kernel.add(f"mx::prefetch<{kernel.size(kernel.layout.of(op.out))}{near}>({ahead});")


def rows_fit(kernel: KernelScope, loop: For) -> bool:
    """Whether a loop's rows of some turns ahead are asked for in the L1, beside its states.

    Rows of all tensors lie a power of two apart: too many take the states' places, and each
    other's, before they are read. Then the L2 is near enough, unless single rows wait for sums.
    """
    if not isinstance(loop.step, int) or loop.step < 2:
        return True
    loads = [op.out for op in loop.body if isinstance(op, Load) and len(op.out.axes) == 1]
    row = sum(kernel.size((*v.axes,)) * v.dtype.size_bytes for v in loads) // loop.step
    states = sum(kernel.size((*c.inner.axes,)) * c.inner.dtype.size_bytes for c in loop.carried)
    return _ROWS_AHEAD * row + states <= _L1_BYTES


def _moves_with(kernel: KernelScope, value: Value, row: Value) -> int:
    """1 where an index is a loop's variable and a number, -1 where it counts down with it, or 0."""
    match kernel.fusion.makers.get(value.name):
        case Elementwise(_, "add", (first, _)) if not value.axes:
            return _moves_with(kernel, first, row)
        case Elementwise(_, "sub", (last, first)) if not value.axes and last != row:
            return -_moves_with(kernel, first, row)
    return int(value == row)


def _tile_call(
    kernel: KernelScope,
    name: str,
    to: str,
    access: Access,
    axes: tuple[str | None, ...],
    *extra: str,
) -> None:
    rows, columns = axes
    blocks = [str(kernel.blocks[a]) if a else "1" for a in (rows, columns)]
    strides = [access.strides[a] if a else "0" for a in (rows, columns)]
    args = [to, access.pointer, *strides, *_counts(kernel, access, axes), *extra]
    kernel.add(f"mx::{name}<{', '.join(blocks)}>({', '.join(args)});")


def _counts(kernel: KernelScope, access: Access, axes: Axes) -> list[str]:
    found = []
    for axis in axes:
        if axis is None:
            found.append("1")
        else:
            found.append(_clipped(kernel, access.counts, axis, str(kernel.blocks[axis])))
    if access.whether:
        found[0] = f"({' && '.join(access.whether)}) ? {found[0]} : 0"
    return found


def _clipped(kernel: KernelScope, bounds: Mapping[str, str], axis: str, unbounded: str) -> str:
    """A bound of an axis, within its block."""
    return f"mx::clip({bounds[axis]}, {kernel.blocks[axis]})" if axis in bounds else unbounded


def _load_columns(kernel: KernelScope, op: Load, access: Access, over: str) -> None:
    (other,) = op.out.axes - {over}
    name = declare_form(kernel, op.out, "columns", over)
    fill = write_number(op.fill, op.out.dtype)
    _tile_call(kernel, "load_tile", name, access, (over, other), fill)


def _load_pairs(kernel: KernelScope, op: Load, access: Access, over: str) -> None:
    (other,) = op.out.axes - {over}
    name = declare_form(kernel, op.out, "pairs", over)
    _tile_call(kernel, "load_pairs", name, access, (over, other))


def _load_rows(kernel: KernelScope, op: Load, access: Access, over: str) -> None:
    """Where rows lie in memory as a dot wants them they are read there, else copied."""
    (other,) = op.out.axes - {over}
    name = declare_form(kernel, op.out, "rows", over)
    pointer, stride = kernel.fresh(f"{op.out.name}_at"), kernel.fresh(f"{op.out.name}_row")
    kernel.add(f"const uint16_t* {pointer} = (const uint16_t*)({access.pointer});")
    kernel.add(f"int64_t {stride} = {access.strides[other]};")
    whole = [f"{access.strides[over]} == 1", *_whole(kernel, access)]
    kernel.add(f"if (!({' && '.join(whole)})) {{")
    function = "load_turned_rows" if kernel.tiled else "load_rows"
    _tile_call(kernel, function, name, access, (other, over))
    kernel.add(f"{pointer} = {name};", f"{stride} = {kernel.blocks[over]};", "}")
    kernel.direct[op.out.name, over] = (pointer, stride, "2")


def _load_pointer(kernel: KernelScope, op: Load, access: Access, over: str) -> None:
    """Numbers that a dot spreads over vectors may lie anyhow: no copy while all exist."""
    (other,) = op.out.axes - {over}
    axes = kernel.layout.of(op.out)
    pointer, stride = kernel.fresh(f"{op.out.name}_at"), kernel.fresh(f"{op.out.name}_row")
    step = kernel.fresh(f"{op.out.name}_step")
    kernel.add(f"const float* {pointer} = {access.pointer};")
    kernel.add(f"int64_t {stride} = {access.strides[other]}, {step} = {access.strides[over]};")
    whole = _whole(kernel, access)
    if whole:
        name = kernel.fresh(f"{op.out.name}_copy")
        kernel.local("float", name, kernel.size(axes))
        kernel.add(f"if (!({' && '.join(whole)})) {{")
        fill = write_number(op.fill, op.out.dtype)
        _tile_call(kernel, "load_tile", name, access, axes, fill)
        inner = {axes[0]: kernel.blocks[axes[1]], axes[1]: 1}
        kernel.add(f"{pointer} = {name};")
        kernel.add(f"{stride} = {inner[other]};", f"{step} = {inner[over]};", "}")
    kernel.direct[op.out.name, over] = (pointer, stride, step)


def _load_vectors(kernel: KernelScope, op: Load, access: Access, over: str) -> None:
    """Where columns lie side by side and all exist they are read in place, else copied."""
    (column,) = op.out.axes - {over}
    pointer, stride = kernel.fresh(f"{op.out.name}_at"), kernel.fresh(f"{op.out.name}_row")
    name = declare_form(kernel, op.out, "columns", over)
    kernel.add(f"const float* {pointer} = {access.pointer};")
    kernel.add(f"int64_t {stride} = {access.strides[over]};")
    whole = [f"{access.strides[column]} == 1", *_whole(kernel, access)]
    kernel.add(f"if (!({' && '.join(whole)})) {{")
    fill = write_number(op.fill, op.out.dtype)
    _tile_call(kernel, "load_tile", name, access, (over, column), fill)
    kernel.add(f"{pointer} = {name};", f"{stride} = {kernel.blocks[column]};", "}")
    kernel.direct_right[op.out.name, over] = (pointer, stride)


def _whole(kernel: KernelScope, access: Access) -> list[str]:
    counts = [f"{count} >= {kernel.blocks[axis]}" for axis, count in access.counts.items()]
    return [*access.whether, *counts]


def _gather(kernel: KernelScope, op: Load) -> None:
    array = kernel.arrays[op.out.name]
    nest = NestText(kernel, array.axes, vector=False)
    code = f"mx::widen({op.buffer}[{_address(kernel, nest, op)}])"
    if op.mask is not None:
        fill = write_number(op.fill, op.out.dtype)
        code = f"{nest.value(op.mask).code} ? {code} : {fill}"
    nest.store(array, Text(f"({code})", op.out.dtype))
    kernel.add(*nest.lines())


def _address(kernel: KernelScope, nest: NestText, op: Load | Store) -> str:
    terms = [f"int64_t({nest.value(v).code}) * {op.buffer}_stride_{d}" for d, v in op.index]
    return " + ".join(terms) or "0"


def write_in_place(kernel: KernelScope, op: Store) -> bool:
    """Let the nest that makes a tile write it to memory; whether it can."""
    access = kernel.reader.access(op)
    if access is None or access.firsts or set(access.strides) != set(op.value.axes):
        return False
    bound = bind_in_memory(kernel, op, op.value, access, _whole(kernel, access))
    kernel.apart[op.value.name] = bound
    return True


def write_store(kernel: KernelScope, op: Store) -> None:
    """Write a tile to memory, or add it to what is there."""
    assert not op.add or kernel.program.buffers[op.buffer].dtype is DType.FLOAT32
    axes = kernel.layout.sort(frozenset[str]().union(*(v.axes for _, v in op.index)))
    kind = MEMORY_TYPE[kernel.program.buffers[op.buffer].dtype]
    access = kernel.reader.access(op) if len(axes) <= 2 else None
    whole = access is not None and set(access.strides) == set(axes) == set(op.value.axes)
    whole = whole and access is not None and not access.firsts
    if whole and axes:
        assert access is not None
        placed = axes if len(axes) == 2 else (None, *axes)
        if apart := kernel.apart.get(op.value.name):
            copy, condition = apart
            kernel.bodies.append([])
            _store_call(kernel, "store_tile", access, copy, placed)
            kernel.add_inside(f"if ({condition}) {{", kernel.bodies.pop())
            return
        pointer = replace(access, pointer=f"({kind}*)({access.pointer})")
        function = "store_flags" if op.value.dtype is DType.BOOL else "store_tile"
        function = "add_tile" if op.add else function
        _store_call(kernel, function, pointer, declared(kernel, op.value), placed)
        return
    if access is None and compacted(kernel, op):
        return
    if access is None and op.value.axes and scattered(kernel, op, declared(kernel, op.value)):
        return
    nest = NestText(kernel, axes, vector=False)
    value = nest.value(op.value)
    place = f"{op.buffer}[{_address(kernel, nest, op)}]"
    code = f"mx::narrow<{kind}>({value.code})" if value.dtype.is_float else value.code
    line = f"{place} {'+=' if op.add else '='} {code};"
    if op.mask is not None:
        line = f"if ({nest.value(op.mask).code}) {line}"
    nest.inner.append(line)
    kernel.add(*nest.lines())


def _store_call(
    kernel: KernelScope, function: str, access: Access, array: str, axes: tuple[str | None, ...]
) -> None:
    blocks = [str(kernel.blocks[a]) if a else "1" for a in axes]
    strides = [access.strides[a] if a else "0" for a in axes]
    args = [access.pointer, array, *strides, *_counts(kernel, access, axes)]
    kernel.add(f"mx::{function}<{', '.join(blocks)}>({', '.join(args)});")


def write_search(kernel: KernelScope, op: Search) -> None:
    """Find a number's place in a sorted table."""
    terms = [
        f"int64_t({kernel.scalar(v).code}) * {op.buffer}_stride_{d}"
        for d, v in op.index
        if d != op.dim
    ]
    table = " + ".join([op.buffer, *terms])
    right = "true" if op.side == "right" else "false"
    args = [table, f"{op.buffer}_stride_{op.dim}", kernel.scalar(op.size).code]
    args.append(kernel.scalar(op.value).code)
    kernel.declare_scalar(op.out, f"mx::search_sorted<{right}>({', '.join(args)})")


_LOAD_FORMS: Mapping[str, Callable[[KernelScope, Load, Access, str], None]] = {
    "pairs": _load_pairs,
    "columns": _load_columns,
    "vectors": _load_vectors,
    "rows": _load_rows,
    "pointer": _load_pointer,
}
