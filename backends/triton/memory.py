"""Loads, stores and searches: pointers from the positions of a tile, as statements of a kernel."""

from __future__ import annotations

from ...ir.tile import Cast, Load, Search, SizeArgument, Store, Value
from ..python_text import PRODUCT, Text, call, chain, infix, name
from .functions import TRITON_TYPE, write_call, write_number
from .kernel_scope import KernelScope
from .layout import Order

Index = tuple[tuple[str, Value], ...]


def write_load(kernel: KernelScope, op: Load, cast: Cast | None = None) -> None:
    """A tile from memory, read in the order of axes that the layout has for it; and its cast."""
    order = kernel.layout.of(op.out)
    pointer = _pointer(kernel, op.buffer, op.index, order)
    hints = {"eviction_policy": '"evict_last"'} if op.again else {}  # equal loads become one
    if op.mask is None:
        text = call("tl.load", pointer, **hints)
    else:
        mask = _mask(kernel, op.mask, order)
        text = call("tl.load", pointer, mask=mask, other=write_number(op.fill), **hints)
    if kernel.program.buffers[op.buffer].nonnegative:
        kernel.nonnegative.add(op.out.name)
    out = op.out
    if cast is not None:
        out, text = cast.out, text.then(f".to({TRITON_TYPE[cast.out.dtype]})")
    kernel.assign(out, text)
    kernel.loaded.add(out.name)


def write_store(kernel: KernelScope, op: Store) -> None:
    """A tile to memory."""
    assert not op.add, "merge_sweeps leaves the plans of GPUs alone"
    axes = frozenset[str]().union(*(v.axes for _, v in op.index))
    order = kernel.layout.sort(axes)
    pointer = _pointer(kernel, op.buffer, op.index, order)
    mask = {} if op.mask is None else {"mask": kernel.shaped(op.mask, order)}
    stored = call("tl.store", pointer, kernel.shaped(op.value, order), **mask)
    kernel.bodies[-1].add(stored)


def write_search(kernel: KernelScope, op: Search) -> None:
    """How many entries of a sorted table lie below a number."""
    kernel.device.add("search")
    rest = tuple((d, v) for d, v in op.index if d != op.dim)
    found = call(
        "_search_sorted",
        _pointer(kernel, op.buffer, rest, ()),
        f"{op.buffer}_stride_{op.dim}",
        kernel.texts[op.size.name],
        kernel.texts[op.value.name],
        RIGHT=op.side == "right",
    )
    kernel.nonnegative.add(op.out.name)
    kernel.assign(op.out, found)


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
    terms = [base]
    for dim, value in rest:
        if not value.axes and _start(kernel, dim, value) is not None:
            continue
        terms.append(_strided(_offset(kernel, value, order), buffer, dim))
    return chain("+", terms)


def _strided(offset: Text, buffer: str, dim: str) -> Text:
    return infix(offset.at(PRODUCT), "*", name(f"{buffer}_stride_{dim}"))


def _base(kernel: KernelScope, buffer: str, index: Index) -> tuple[Text, Index]:
    """The pointer to what the top level fixes of a buffer, and the indices that remain."""
    fixed = [(d, v) for d, v in index if not v.axes and kernel.is_outermost(v)]
    rest = tuple((d, v) for d, v in index if (d, v) not in fixed)
    fixed = [(d, v) for d, v in fixed if kernel.constants.get(v.name) != 0]
    if not fixed:
        return name(buffer), rest
    terms = [_strided(_far(kernel, v), buffer, d) for d, v in fixed]
    key = (buffer, tuple((d, v.name) for d, v in fixed))
    return kernel.outermost(key, f"{buffer}_base", chain("+", [name(buffer), *terms])), rest


def _far(kernel: KernelScope, value: Value) -> Text:
    """A position that may be far, as 64 bits; what is made of arguments may be a plain number."""
    if value.name in kernel.constants:
        return Text(str(kernel.constants[value.name]))
    text = kernel.texts[value.name]
    if any(axis.position == value for axis in kernel.program.grid):
        return text.then(".to(tl.int64)")
    return call("tl.cast", text, "tl.int64")


def _block_base(
    kernel: KernelScope, buffer: str, base: Text, starts: list[tuple[str, Text]]
) -> Text:
    """The pointer to where a tile starts: what may be far is counted in 64 bits."""
    terms = [_strided(call("tl.cast", s, "tl.int64"), buffer, d) for d, s in starts]
    made = chain("+", [base, *terms])
    return kernel.once(made.code, f"{buffer}_block", made)


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
    offset = name(kernel.offset(dim))
    if len(order) > 1:
        places = ", ".join(":" if a == dim else "None" for a in order)
        offset = offset.then(f"[{places}]")
    return offset
