"""Operators under ``torch.vmap``: one axis more is part of the batch, where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..ir.expression import Cumsum, Index, Read, Reduce, Size, Solve
from ..ir.mixer import Attention, Layout, Mixer, Recurrence, Select
from ..ir.optional import expressions
from ..ir.rewriting import walk
from .recording import recording_of

Operator = Callable[[str, str, list[Tensor], list[float]], list[Tensor]]


def mapped(
    operator: Operator,
    info: Any,
    in_dims: tuple[None, None, Sequence[int | None], None],
    mixer: str,
    call: str,
    tensors: Sequence[Tensor],
    params: list[float],
) -> tuple[list[Tensor], list[int]]:
    """The results with the axis more, and where it is: in one call, else in one for each place."""
    places, count = list(in_dims[2]), int(info.batch_size)
    rows = [_row(tensor, place, 0) for tensor, place in zip(tensors, places, strict=True)]
    meant, inputs, outputs = recording_of(mixer, call).layouts(rows, params)
    axis = batch_axis(meant, inputs, outputs)
    free = [layout for layout, place in zip(inputs, places, strict=True) if place is not None]
    if axis is None or any(layout is None or (axis,) not in layout for layout in free):
        pairs = list(zip(tensors, places, strict=True))
        made = [
            operator(mixer, call, [_row(*pair, n) for pair in pairs], params) for n in range(count)
        ]
        return [torch.stack(results) for results in zip(*made, strict=True)], [0] * len(outputs)
    folded = [_folded(*one, axis, count) for one in zip(tensors, places, inputs, strict=True)]
    results = operator(mixer, call, folded, params)
    own = [layout.index((axis,)) for layout in outputs]
    apart = [_unfolded(*one, count) for one in zip(results, own, strict=True)]
    return apart, own


def batch_axis(
    mixer: Mixer, inputs: Sequence[Layout | None], outputs: Sequence[Layout]
) -> str | None:
    """An axis along which all results lie apart and are computed apart; the first of the first."""
    bound = _bound(mixer)
    layouts = [layout for layout in (*inputs, *outputs) if layout is not None]
    mixed = {dim for layout in layouts for product in layout if len(product) > 1 for dim in product}
    for product in outputs[0] if outputs else ():
        free = len(product) == 1 and product[0] not in bound | mixed
        if free and all(product in layout for layout in outputs):
            return product[0]
    return None


def _bound(mixer: Mixer) -> set[str]:
    """The dims whose positions have to do with each other, or whose length matters."""
    found = {dim for pair in (*mixer.sequences, *mixer.heads) for dim in pair}
    found |= {dim for dim, _ in mixer.sizes} | {dim for t in mixer.tables for dim in t.dims}
    found |= {stage.over for stage in mixer.stages if isinstance(stage, Attention | Recurrence)}
    found |= {dim for stage in mixer.stages if isinstance(stage, Select) for dim in stage.over}
    values = [*expressions(mixer), *(param.value for param in mixer.params)]
    for node in (node for value in (*values, *dict(mixer.sizes).values()) for node in walk(value)):
        match node:
            case Size(dim) | Index(dim):
                found.add(dim)
            case Reduce(over=over, group=group):
                found |= {*over, *(dim for dim, _ in group)}
            case Read(at=at):
                found |= {dim for dim, _ in at}
            case Cumsum(over=dim):
                found.add(dim)
            case Solve(left=left, right=right):
                found |= {left, right}
    return found


def _row(tensor: Tensor, place: int | None, row: int) -> Tensor:
    return tensor if place is None else tensor.select(place, row)


def _folded(
    tensor: Tensor, place: int | None, layout: Layout | None, axis: str, count: int
) -> Tensor:
    """The tensor with the axis more as part of ``axis``, repeated where it has none."""
    if layout is None or (axis,) not in layout:
        return tensor
    own = layout.index((axis,))
    if place is None:
        shape = [*tensor.shape[:own], count, *tensor.shape[own:]]
        return tensor.unsqueeze(own).expand(shape).flatten(own, own + 1)
    return tensor.movedim(place, own).flatten(own, own + 1)


def _unfolded(tensor: Tensor, place: int, count: int) -> Tensor:
    """The tensor with the axis more before the one at ``place``, which it was part of."""
    shape = tensor.shape
    return tensor.reshape(*shape[:place], count, shape[place] // count, *shape[place + 1 :])


__all__ = ["batch_axis", "mapped"]
