"""Tensors to time a mixer with: random, and where randomness would mislead, typical."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...ir.binding import Number
from ...ir.expression import Call, Expr, Kind, Read, Ref
from ...ir.mixer import Attention, Mixer, Recurrence
from ...ir.rewriting import walk
from ..checking.sampling import sample_inputs
from .work import inlined

_DOCUMENTS = 4
# Of how many tokens one is seen by all rows: Longformer has a question's, at the front.
_TOKENS_PER_MARK = 64


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
    """Random inputs without those ``left_out``.

    Sorted ids make four documents of one length; tokens marked to be seen by all are few, in front.
    """
    made = sample_inputs(mixer, sizes, dtype, seed, device, absent=left_out(mixer), params=params)
    for given in mixer.inputs:
        tensor = made.get(given.name)
        if given.sorted and tensor is not None and tensor.ndim:
            count = tensor.shape[-1]
            documents = torch.arange(count, device=device) * _DOCUMENTS // max(count, 1)
            made[given.name] = documents.to(tensor.dtype).expand_as(tensor).contiguous()
    for name in _marks(mixer) & {*made}:
        count = made[name].shape[-1]
        marked = torch.arange(count, device=device) * _TOKENS_PER_MARK < count
        made[name] = marked.expand_as(made[name]).contiguous()
    return made


def _marks(mixer: Mixer) -> set[str]:
    """Booleans of tokens, each of which alone lets rows see a key: `near or is_global[j]`."""
    masks = [
        inlined(mixer, stage.mask)
        for stage in mixer.stages
        if isinstance(stage, Attention) and stage.mask is not None
    ]
    choices = [
        choice
        for mask in masks
        for node in walk(mask)
        if isinstance(node, Call) and node.fn == "or"
        for choice in node.args
    ]
    named = {name for choice in choices for name in _mark(choice)}
    sequences = {dim for pair in mixer.sequences for dim in pair}
    return {
        i.name
        for i in mixer.inputs
        if i.name in named and i.kind is Kind.BOOL and i.dims and i.dims[-1] in sequences
    }


def _mark(choice: Expr) -> tuple[str, ...]:
    match choice:
        case Ref(name) | Read(Ref(name)):
            return (name,)
    return ()
