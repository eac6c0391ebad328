"""Nests as the fusion has gathered them: where each keeps what it makes, then the loops."""

from __future__ import annotations

from collections.abc import Iterator

from ...ir.tile import Value, operands
from .functions import SCALAR_TYPE, Text
from .fusion import Nest
from .in_place import stored_in_place
from .kernel_scope import KernelScope
from .nest import NestText
from .products import declare_form, pack_operands
from .sums_by_place import write_sums_by_place
from .tile_memory import write_in_place


def write_nest(kernel: KernelScope, nest: Nest) -> None:
    """Declare what a nest fills, then the nest, then what is made of that."""
    if write_sums_by_place(kernel, nest):
        for sink in nest.sinks:
            pack_operands(kernel, sink.out)
        return
    axes = kernel.layout.sort(nest.axes)
    pair_axis = None
    overwritten: list[Value] = []
    for sink in nest.sinks:
        if not sink.out.axes:
            name = kernel.fresh(sink.out.name)
            kernel.add(f"{SCALAR_TYPE[sink.out.dtype]} {name};")
            kernel.scalars[sink.out.name] = Text(name, sink.out.dtype)
            continue
        pair_axis = _declare_sink(kernel, sink.out, nest, pair_axis, overwritten)
    in_memory = any(kernel.arrays[v.name].row for v in _tiles(kernel, nest))
    text = NestText(
        kernel,
        axes,
        nest.over,
        kernel.in_vectors(axes),
        pair_axis,
        rows_first=in_memory and nest.over is None,
    )
    text.make(nest.sinks, overwritten)
    kernel.add(*text.lines())
    for sink in nest.sinks:
        pack_operands(kernel, sink.out)


def _tiles(kernel: KernelScope, nest: Nest) -> Iterator[Value]:
    """What a nest reads and makes, as far as it has arrays."""
    read = (b for s in nest.sinks for v in operands(s) for b in kernel.fusion.bases(v))
    yield from (v for v in (*read, *(s.out for s in nest.sinks)) if v.name in kernel.arrays)


def _declare_sink(
    kernel: KernelScope, value: Value, nest: Nest, pair_axis: str | None, overwritten: list[Value]
) -> str | None:
    """Declare what a nest fills; gives the axis that it has to take two at a time."""
    made_here = value.axes == nest.axes
    late = False
    for form, over in sorted(kernel.operand_forms.get(value.name, ())):
        lane = kernel.layout.of(value)[-1]
        in_nest = (form == "rows" and over == lane) or (
            form == "pairs"
            and nest.lanes is None
            and over != lane
            and nest.over in (None, over)
            and pair_axis in (None, over)
        )
        in_nest = in_nest and kernel.in_vectors(kernel.layout.of(value))
        if form == "rows" and not in_nest and ("pairs", over) in kernel.forms[value.name]:
            continue  # they come out of the pairs
        if not made_here or not in_nest or form == "columns":
            late = True
            continue
        declare_form(kernel, value, form, over)
        if form == "pairs":
            pair_axis = over
    store = stored_in_place(kernel, nest, value)
    if store is not None and write_in_place(kernel, store):
        return pair_axis
    if late or kernel.needs_plain(value) or value.axes != nest.axes:
        source = _overwritable(kernel, value, nest) if made_here else None
        if source is None:
            kernel.declare(value)
        else:
            overwritten.append(source)
            kernel.take(value, source)
    return pair_axis


def _overwritable(kernel: KernelScope, value: Value, nest: Nest) -> Value | None:
    """A value that a nest reads in place of which it can put another: a state, mostly."""
    handed = kernel.yields[-1] if kernel.yields else {}
    own = [handed[value.name]] if value.name in handed else []
    read = [b for s in nest.sinks for v in operands(s) for b in kernel.fusion.bases(v)]
    waiting = {handed[s.out.name].name for s in nest.sinks if s.out.name in handed}
    others = [v for v in read if v.name not in waiting]
    fits = (v for v in [*own, *others] if kernel.may_overwrite(v, value, *nest.sinks))
    return next(fits, None)
