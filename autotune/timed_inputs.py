"""Tensors to time a mixer with: random, and where randomness would mislead, typical."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..ir.binding import Number
from ..ir.expression import Kind, Ref
from ..ir.mixer import Mixer, Recurrence
from .sampling import sample_inputs

_DOCUMENTS = 4


def left_out(mixer: Mixer) -> frozenset[str]:
    """Inputs with a default that a typical call does not pass: lengths, marks, first states."""
    starts = _starts(mixer)
    return frozenset(
        i.name
        for i in mixer.inputs
        if i.default is not None and (i.kind is not Kind.REAL or i.name in starts)
    )


def _starts(mixer: Mixer) -> set[str]:
    """The inputs that states start at."""
    return {
        state.initial.name
        for stage in mixer.stages
        if isinstance(stage, Recurrence)
        for state in stage.states
        if isinstance(state.initial, Ref)
    }


def timed_inputs(
    mixer: Mixer,
    sizes: Mapping[str, int],
    dtype: torch.dtype,
    seed: int = 0,
    device: str | torch.device = "cpu",
    params: Mapping[str, Number] = {},
) -> dict[str, Tensor]:
    """Random inputs without those ``left_out``; sorted ids make four documents of one length."""
    made = sample_inputs(mixer, sizes, dtype, seed, device, absent=left_out(mixer), params=params)
    for given in mixer.inputs:
        tensor = made.get(given.name)
        if given.sorted and tensor is not None and tensor.ndim:
            count = tensor.shape[-1]
            documents = torch.arange(count, device=device) * _DOCUMENTS // max(count, 1)
            made[given.name] = documents.to(tensor.dtype).expand_as(tensor).contiguous()
    return made
