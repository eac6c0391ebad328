"""Sums in which each term counts at one place: a term is added there, and looked at once.

    out[s] = sum over c of where(key[c] == s, x[c], 0)
    --> out = 0;  for each c: out[key[c]] += x[c], where that is a place of the tile

What is written with a rank is such a sum: the terms in another order. Terms of a place come in the
order of c either way.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.tile import Cast, Constant, DType, Elementwise, Range, Reduce, Value
from .fusion import Nest
from .kernel_scope import KernelScope
from .nest import NestText

_FEWEST = 64  # places: of fewer vectors add all terms as soon


@dataclass
class _Sum:
    """``x`` at the place that ``key`` says, of those from ``places`` on, if conditions hold."""

    x: Value
    key: Value
    places: Range
    conditions: list[Value]


def write_sums_by_place(kernel: KernelScope, nest: Nest) -> bool:
    """Whether a nest makes nothing but such sums, and has been written."""
    found = [(sink, _sum(kernel, sink)) for sink in nest.sinks if isinstance(sink, Reduce)]
    sums = [(sink, one) for sink, one in found if one is not None]
    if len(sums) != len(nest.sinks):
        return False
    for sink, one in sums:
        _write(kernel, nest, sink, one)
    return True


def _write(kernel: KernelScope, nest: Nest, sink: Reduce, found: _Sum) -> None:
    (place,) = found.places.out.axes
    array = kernel.declare(sink.out)
    kernel.add(f"memset({array.name}, 0, {kernel.locals.bytes[array.name]});")
    axes = kernel.layout.sort(nest.axes - {place})
    text = NestText(kernel, axes, sink.over, vector=False)
    key = text.value(found.key).code
    start = "0" if found.places.start is None else kernel.scalar(found.places.start).code
    inside = f"uint32_t(at_{place}) < {kernel.blocks[place]}u"
    conditions = " && ".join([*(text.value(c).code for c in found.conditions), inside])
    x = text.value(found.x).code
    text.inner += [
        f"const int32_t at_{place} = {key} - ({start});",
        f"if ({conditions}) {array.name}[{kernel.place(array.axes)}] += {x};",
    ]
    kernel.add(*text.lines())


def _sum(kernel: KernelScope, sink: Reduce) -> _Sum | None:
    if sink.op != "sum" or sink.out.dtype is DType.BOOL or not sink.out.axes:
        return None
    x, conditions = _terms(kernel, sink.x)
    places = sink.out.axes - x.axes
    if len(places) != 1 or x.dtype not in (DType.INT32, DType.INT64, DType.FLOAT32):
        return None
    (place,) = places
    if kernel.blocks[place] < _FEWEST:
        return None
    telling = [c for c in conditions if place in c.axes]
    if len(telling) != 1 or sink.over not in telling[0].axes:
        return None
    match kernel.fusion.makers.get(telling[0].name):
        case Elementwise(_, "eq", (a, b)):
            pairs = [(a, kernel.fusion.makers.get(b.name)), (b, kernel.fusion.makers.get(a.name))]
            for key, maker in pairs:
                if isinstance(maker, Range) and maker.out.axes == places != key.axes:
                    rest = [c for c in conditions if c is not telling[0]]
                    whole = key.dtype is DType.INT32 and place not in key.axes
                    return _Sum(x, key, maker, rest) if whole else None
    return None


def _terms(kernel: KernelScope, x: Value) -> tuple[Value, list[Value]]:
    """What is summed where all of some conditions hold, and 0 elsewhere."""
    conditions: list[Value] = []
    while x.name in kernel.fusion.virtual:
        match kernel.fusion.makers.get(x.name):
            case Cast(out, narrow) if out.dtype is DType.INT64 and narrow.dtype is DType.INT32:
                x = narrow
            case Elementwise(_, "where", (condition, chosen, other)):
                zero = kernel.fusion.makers.get(other.name)
                if not isinstance(zero, Constant) or zero.value != 0:
                    break
                conditions += _conjuncts(kernel, condition)
                x = chosen
            case _:
                break
    return x, conditions


def _conjuncts(kernel: KernelScope, condition: Value) -> list[Value]:
    match kernel.fusion.makers.get(condition.name):
        case Elementwise(_, "and", (a, b)) if condition.name in kernel.fusion.virtual:
            return [*_conjuncts(kernel, a), *_conjuncts(kernel, b)]
    return [condition]


__all__ = ["write_sums_by_place"]
