"""What stands in keys and values that no row may look at: NaN and infinities, as in padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ...ir.expression import Kind
from ...ir.mixer import Attention, Input, Mixer


def has_garbage(mixer: Mixer) -> bool:
    """Whether some attention has a mask, and inputs that its keys alone index."""
    return any(_keyed(mixer))


def with_garbage(mixer: Mixer, tensors: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The tensors with some keys and values that are not finite.

    Under a mask there are then rows that see one of them, and rows that see none.
    """
    generator = torch.Generator().manual_seed(seed)
    made = dict(tensors)
    for declared, dim in dict(_keyed(mixer)).items():
        if declared.name in made:
            made[declared.name] = _spoilt(made[declared.name], declared, dim, generator)
    return made


def _keyed(mixer: Mixer) -> Iterator[tuple[Input, str]]:
    """Real inputs along the keys of an attention with a mask, and not along its queries."""
    for stage in mixer.stages:
        if not isinstance(stage, Attention) or stage.mask is None:
            continue
        rows = {dim for dim in stage.queries if mixer.sequence(dim) == mixer.sequence(stage.over)}
        for declared in mixer.inputs:
            along = set(declared.dims)
            if declared.kind is Kind.REAL and stage.over in along and not along & rows:
                yield declared, stage.over


def _spoilt(tensor: Tensor, declared: Input, dim: str, generator: torch.Generator) -> Tensor:
    """A NaN along all of one position, an infinity of either sign in one number of others."""
    axis = next((n for n, product in enumerate(declared.layout) if product == (dim,)), None)
    if axis is None or not tensor.numel():
        return tensor
    tensor = tensor.clone()
    rows = tensor.movedim(axis, 0) if tensor.ndim > 1 else tensor[:, None]
    places = torch.randint(len(rows) // 4, len(rows), (3,), generator=generator).tolist()
    rows[places[0]] = torch.nan
    for place, number in zip(places[1:], (torch.inf, -torch.inf), strict=True):
        rows[place, ..., :1] = number
    return tensor
