"""Loads, stores and searches: pointers from the positions of a tile, as statements of a kernel."""

from __future__ import annotations

from ...ir.tile import Cast, Load, Search, SizeArgument, Store, Value
from .functions import ATOM, PRODUCT, SUM, TRITON_TYPE, Text, write_call, write_number
from .kernel_scope import KernelScope
from .layout import Order

Index = tuple[tuple[str, Value], ...]


def write_load(kernel: KernelScope, op: Load, cast: Cast | None = None) -> None:
    """A tile from memory, read in the order of axes that the layout has for it; and its cast."""
    order = kernel.layout.of(op.out)
    pointer = _pointer(kernel, op.buffer, op.index, order)
    if op.mask is None:
        code = f"tl.load({pointer.code})"
    else:
        fill = write_number(op.fill).code
        mask = _mask(kernel, op.mask, order)
        code = f"tl.load({pointer.code}, mask={mask.code}, other={fill})"
    if kernel.program.buffers[op.buffer].nonnegative:
        kernel.nonnegative.add(op.out.name)
    out = op.out
    if cast is not None:
        out, code = cast.out, f"{code}.to({TRITON_TYPE[cast.out.dtype]})"
    name = kernel.unique(out.name)
    kernel.statement(f"{name} = {code}")
    kernel.name_value(out.name, name)
    kernel.loaded.add(out.name)


def write_store(kernel: KernelScope, op: Store) -> None:
    """A tile to memory."""
    axes = frozenset[str]().union(*(v.axes for _, v in op.index))
    order = kernel.layout.sort(axes)
    pointer = _pointer(kernel, op.buffer, op.index, order)
    value = kernel.shaped(op.value, order).code
    mask = "" if op.mask is None else f", mask={kernel.shaped(op.mask, order).code}"
    kernel.statement(f"tl.store({pointer.code}, {value}{mask})")


def write_search(kernel: KernelScope, op: Search) -> None:
    """How many entries of a sorted table lie below a number."""
    kernel.device.add("search")
    rest = tuple((d, v) for d, v in op.index if d != op.dim)
    args = [
        _pointer(kernel, op.buffer, rest, ()).code,
        f"{op.buffer}_stride_{op.dim}",
        kernel.texts[op.size.name].code,
        kernel.texts[op.value.name].code,
        f"RIGHT={op.side == 'right'}",
    ]
    name = kernel.unique(op.out.name)
    kernel.statement(f"{name} = _search_sorted({', '.join(args)})")
    kernel.nonnegative.add(op.out.name)
    kernel.name_value(op.out.name, name)


def _mask(kernel: KernelScope, mask: Value, order: Order) -> Text:
    """A condition in an order of axes, put together anew where it is made in another."""
    own = kernel.layout.of(mask)
    made = kernel.conditions.get(mask.name)
    if made is None or own == tuple(a for a in order if a in own):
        return kernel.shaped(mask, order)
    args = [_mask(kernel, arg, order) for arg in made.args]
    numbers = [kernel.constants.get(arg.name) for arg in made.args]
    return write_call(made.fn, args, numbers)[0]


# -------------------------------------------------------------------------------- pointers


def _pointer(kernel: KernelScope, buffer: str, index: Index, order: Order) -> Text:
    base, rest = _base(kernel, buffer, index)
    starts = [(d, start) for d, value in rest if (start := _start(kernel, d, value)) is not None]
    if starts:
        base = _block_base(kernel, buffer, base, starts)
    terms, reads = [base], frozenset({base})
    for dim, value in rest:
        if not value.axes and _start(kernel, dim, value) is not None:
            continue
        offset = _offset(kernel, value, order)
        terms.append(f"{offset.at(PRODUCT)} * {buffer}_stride_{dim}")
        reads |= offset.reads
    return Text(" + ".join(terms), SUM, reads)


def _base(kernel: KernelScope, buffer: str, index: Index) -> tuple[str, Index]:
    """The pointer to what the top level fixes of a buffer, and the indices that remain."""
    fixed = [(d, v) for d, v in index if not v.axes and kernel.is_outermost(v)]
    rest = tuple((d, v) for d, v in index if (d, v) not in fixed)
    fixed = [(d, v) for d, v in fixed if kernel.constants.get(v.name) != 0]
    if not fixed:
        return buffer, rest
    terms = [f"{_far(kernel, v)} * {buffer}_stride_{d}" for d, v in fixed]
    key = (buffer, tuple((d, v.name) for d, v in fixed))
    return kernel.outermost(key, f"{buffer}_base", " + ".join([buffer, *terms])), rest


def _far(kernel: KernelScope, value: Value) -> str:
    """A position that may be far, as 64 bits; what is made of arguments may be a plain number."""
    if value.name in kernel.constants:
        return str(kernel.constants[value.name])
    text = kernel.texts[value.name]
    if any(axis.position == value for axis in kernel.program.grid):
        return f"{text.at(ATOM)}.to(tl.int64)"
    return f"tl.cast({text.code}, tl.int64)"


def _block_base(kernel: KernelScope, buffer: str, base: str, starts: list[tuple[str, Text]]) -> str:
    """The pointer to where a tile starts: what may be far is counted in 64 bits."""
    key = (buffer, base, tuple((dim, start.code) for dim, start in starts))
    terms = [f"tl.cast({s.code}, tl.int64) * {buffer}_stride_{d}" for d, s in starts]
    return kernel.once(key, f"{buffer}_block", lambda: " + ".join([base, *terms]))


def _start(kernel: KernelScope, dim: str, value: Value) -> Text | None:
    """Where a tile starts; a single position along a dim of any length starts where it is."""
    if not value.axes and SizeArgument(dim) in kernel.program.arguments:
        return kernel.texts[value.name]
    start = kernel.starts.get(value.name)
    return None if start is None else kernel.texts[start.name]


def _offset(kernel: KernelScope, value: Value, order: Order) -> Text:
    """The positions of a tile, from where it starts."""
    if value.name not in kernel.starts:
        return kernel.shaped(value, order)
    (dim,) = value.axes
    offset = Text(kernel.offset(dim))
    if len(order) > 1:
        places = ", ".join(":" if a == dim else "None" for a in order)
        offset = Text(f"{offset.code}[{places}]")
    return offset
