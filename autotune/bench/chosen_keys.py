"""The attention to keys that a selection chose, by itself: what SDPA and FlexAttention can say.

The choice, and whatever else goes before, is made beforehand, as FlexAttention's block mask is: a
peer that leaves it out is only quicker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from ...backends.reference.evaluate import run
from ...ir.errors import UnsupportedError
from ...ir.expression import Expr, Kind, Ref, call
from ...ir.mixer import Attention, Input, Mixer, Output, Select
from ...ir.names import names_in
from ...ir.rewriting import conjuncts
from ...ir.stages import values
from .peers import Call as PeerCall
from .peers import Peer, Setting
from .work import inlined


def among_chosen(peer: Peer) -> Peer:
    """A peer for one attention; of a mixer of several stages the one whose keys are chosen."""

    def make(setting: Setting) -> PeerCall:
        if len(setting.mixer.stages) == 1:
            return peer(setting)
        alone = to_chosen_keys(setting)
        made = peer(alone)
        given = {o.name for o in alone.mixer.outputs}
        lacks = (o.name for o in setting.mixer.outputs if o.name not in given)
        what = f"{made.what}, keys chosen beforehand"
        return replace(made, what=what, lacks=(*made.lacks, *lacks))

    return make


def among_all(peer: Peer) -> Peer:
    """A peer for that attention to all keys: what it saves to choose. Its results are others."""

    def make(setting: Setting) -> PeerCall:
        made = peer(to_all_keys(setting))
        lacks = tuple(o.name for o in setting.mixer.outputs)
        what = f"{made.what}, nothing chosen"
        return replace(made, what=what, results=lambda _: {}, lacks=lacks)

    return make


def to_chosen_keys(setting: Setting) -> Setting:
    """The setting of the one attention whose mask is a choice, what was chosen given to it.

    Raises:
        UnsupportedError: no attention's mask reads a selection.
    """
    mixer = setting.mixer
    place, stage, _ = _choosing(mixer)
    chosen = {ref.name: ref for earlier in mixer.stages[:place] for ref in earlier.results}
    parts = [inlined(mixer, part) for _, part in values(stage)]
    read = [chosen[name] for name in sorted(names_in(*parts) & chosen.keys())]
    alone, made = _alone(mixer, stage), _made(setting, place, read)
    given = tuple(Input(ref.name, _axes(setting, ref), ref.kind, grad=False) for ref in read)
    alone = replace(alone, inputs=(*alone.inputs, *given))
    return replace(setting, mixer=alone, tensors={**setting.tensors, **made})


def to_all_keys(setting: Setting) -> Setting:
    """The setting of that attention to all keys that it might have chosen.

    Raises:
        UnsupportedError: no attention's mask reads a selection.
    """
    mixer = setting.mixer
    _, stage, mask = _choosing(mixer)
    chosen = _selections(mixer)
    kept = [p for p in conjuncts(mask) if not names_in(p) & chosen]
    left = reduce(lambda a, b: call("and", a, b), kept) if kept else None
    return replace(setting, mixer=_alone(mixer, replace(stage, mask=left)))


def _selections(mixer: Mixer) -> frozenset[str]:
    return frozenset(s.output for s in mixer.stages if isinstance(s, Select))


def _choosing(mixer: Mixer) -> tuple[int, Attention, Expr]:
    """The first attention whose mask reads a selection: its place, itself, and the mask."""
    chosen = _selections(mixer)
    for place, stage in enumerate(mixer.stages):
        if isinstance(stage, Attention) and stage.mask is not None:
            mask = inlined(mixer, stage.mask)
            if names_in(mask) & chosen:
                return place, stage, mask
    raise UnsupportedError("it has several stages" if len(mixer.stages) > 1 else "it has no choice")


def _alone(mixer: Mixer, stage: Attention) -> Mixer:
    """The mixer of one stage; its result has the layout of the mixer's own of the same axes."""
    name, value = stage.outputs[0].name, stage.outputs[0].value
    axes = stage.queries | value.axes - {stage.over}
    like = next((o for o in mixer.outputs if {*o.dims} == axes), None)
    if like is None:
        raise UnsupportedError("its attention has other axes than its outputs")
    return replace(mixer, stages=(stage,), outputs=(Output(name, like.layout),))


def _axes(setting: Setting, ref: Ref) -> tuple[tuple[str, ...], ...]:
    return tuple((dim,) for dim in setting.sizes if dim in ref.axes)


def _made(setting: Setting, place: int, read: list[Ref]) -> Mapping[str, Tensor]:
    """What earlier stages give, by the reference."""
    if not read:
        return {}
    outputs = tuple(Output(ref.name, _axes(setting, ref), ref.kind) for ref in read)
    before = replace(setting.mixer, stages=setting.mixer.stages[:place], outputs=outputs)
    found = run(before, setting.tensors, setting.params, dtype=torch.float32)
    kinds = {ref.name: ref.kind for ref in read}
    return {n: t.to(setting.dtype) if kinds[n] is Kind.REAL else t for n, t in found.items()}


__all__ = ["among_all", "among_chosen", "to_all_keys", "to_chosen_keys"]
