"""Random tensors by the laws of ``draws``, and gates that keep to extremes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from ...compiler.analysis.intervals import Interval
from ...ir.binding import shape_of
from ...ir.mixer import Input
from .draws import Draw, Law

_BY_LAW: Mapping[Law, Callable[[Tensor], Tensor]] = {
    Law.NORMAL: lambda x: x,
    Law.NEGATIVE: lambda x: functional.logsigmoid(x + 3),
    Law.LITTLE: lambda x: torch.sigmoid(x - 3),
    Law.MUCH: lambda x: torch.sigmoid(x + 3),
    Law.SHARE: torch.sigmoid,
    Law.POSITIVE: lambda x: torch.exp(x / 2),
}
_EXTREMES: Mapping[Law, tuple[float, ...]] = {
    Law.NORMAL: (-30.0, 30.0),
    Law.NEGATIVE: (-30.0, 0.0),
    Law.LITTLE: (0.0, 1.0),
    Law.MUCH: (0.0, 1.0),
    Law.SHARE: (0.0, 1.0),
    Law.POSITIVE: (30.0,),
}
# How many rows a gate keeps to one extreme, on average.
_STRETCH = 16


def draw_tensor(
    draw: Draw,
    declared: Input,
    sizes: Mapping[str, int],
    generator: torch.Generator,
    strong: bool = False,
) -> Tensor:
    """A float64 tensor by its law; with ``strong``, a gate keeps to extremes for long stretches."""
    shape = [sizes[dim] for dim in declared.dims]
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    made = _BY_LAW[draw.law](normal) if draw.within is None else _within(draw.within, normal)
    if draw.unit:
        along = [declared.dims.index(dim) for dim in draw.unit]
        norm = made.square().sum(along, keepdim=True).sqrt()
        made = draw.scale * made / norm.clamp(min=1e-9)
    if strong and draw.rows is not None and made.numel():
        made = _in_stretches(draw, made, declared.dims.index(draw.rows), generator)
    return made.reshape(shape_of(declared.layout, sizes))


def _within(interval: Interval, normal: Tensor) -> Tensor:
    """Evenly over an interval with two ends, near the end of one that is open."""
    low, high = interval.low, interval.high
    match math.isfinite(low), math.isfinite(high):
        case True, True:
            share: Tensor = torch.special.ndtr(normal)
            return low + (high - low) * share
        case True, False:
            return low + _BY_LAW[Law.POSITIVE](normal)
        case False, True:
            return high + _BY_LAW[Law.NEGATIVE](normal)
        case _:
            return normal


def _extremes(draw: Draw) -> tuple[float, ...]:
    if draw.within is None:
        return _EXTREMES[draw.law]
    low, high = draw.within.low, draw.within.high
    far = 30.0
    return (
        low if math.isfinite(low) else min(0.0, high) - far,
        high if math.isfinite(high) else max(0.0, low) + far,
    )


def _admits(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


def _in_stretches(draw: Draw, usual: Tensor, axis: int, generator: torch.Generator) -> Tensor:
    """The usual values, and each extreme, in turns of random length along an axis."""
    rows = usual.movedim(axis, 0)
    extremes = [*_extremes(draw), *([-0.5] if draw.signed else [])]
    extremes = [x for x in extremes if draw.within is None or _admits(draw.within, x)]
    turns = torch.rand(rows.shape, generator=generator) < 1 / _STRETCH
    places = torch.arange(len(rows)).reshape(-1, *(1,) * (rows.ndim - 1))
    begun = torch.where(turns, places, 0).cummax(0).values
    which = torch.randint(0, len(extremes) + 1, rows.shape, generator=generator).gather(0, begun)
    values = torch.tensor([*extremes, 0.0], dtype=usual.dtype)[which]
    return torch.where(which == len(extremes), rows, values).movedim(0, axis)
