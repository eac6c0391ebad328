"""A segment of a sequence as ``torch.compile`` traces it: operators and what goes between them.

This is ``Stepping`` in words that a tracer reads: no kernel is looked for, no length is asked, and
keys are joined to those before by a copy, since a program's buffers can't grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..ir.errors import ArgumentError, UnsupportedError
from ..stepping.state import SequenceState
from .segments import Segments, segments
from .signature import Part
from .traced import called, split


def traced_segment(
    mixer: Part,
    given: Mapping[str, Any],
    state: SequenceState | None,
    one_row: bool,
) -> tuple[dict[str, Tensor], SequenceState]:
    """The outputs by name and the state after the segment; see ``Stepping``.

    Raises ArgumentError where the state or a row does not fit, UnsupportedError for a term that
    needs the whole sequence.
    """
    plan = segments(mixer.text, one_row)
    tensors, params = split(mixer, given)
    if state is not None:
        _check(plan, tensors, state)
    left_out = False
    if one_row:
        left_out = _is_left_out(plan, tensors)
        tensors = {name: _as_row(plan, name, x, left_out) for name, x in tensors.items()}
    if state is None:
        made = _run(plan.first, tensors, params)
        keys = {k.name: (tensors if k.is_given else made)[k.rows] for k in plan.keys}
    else:
        made, keys = _later(plan, tensors, params, state)
    rows = _rows(plan, tensors, made)
    handed = {name: made[after] for name, _, after in plan.carried}
    after = SequenceState(plan.name, _t(state, rows), {**handed, **keys}, plan.source)
    real = [tensors[name].dtype for name in plan.reals if name in tensors]
    for name in plan.states_out:  # a state keeps its own dtype, and an output has the inputs'
        narrow = [dtype for dtype in real if dtype.itemsize == 2]
        made[name] = made[name].to((narrow or real or [torch.float32])[0])
    if left_out:
        for name, place in plan.outputs:
            made[name] = made[name].squeeze(place)
    return made, after


def _later(
    plan: Segments, tensors: Mapping[str, Tensor], params: Mapping[str, Any], state: SequenceState
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The results of a later segment, and its keys with those before."""
    known = dict(tensors)
    for name, before, _ in plan.carried:
        known[before] = state[name]
    if plan.rows_before is not None:
        if isinstance(state.t, tuple):
            raise UnsupportedError(
                f"{plan.name} reads positions, and the documents of this state have several "
                "lengths: continue from the states of documents of one length"
            )
        device = next(iter(tensors.values())).device
        known[plan.rows_before] = torch.full((), state.t, dtype=torch.int32, device=device)
    made: dict[str, Tensor] = {}
    keys: dict[str, Tensor] = {}
    for part in plan.later:
        for key in plan.keys:
            if key.name not in keys and key.rows in known:
                keys[key.name] = torch.cat([state[key.name], known[key.rows]], key.place)
                known[key.before] = keys[key.name]
        results = _run(part, known, params)
        known = {**known, **results}
        made = {**made, **results}
    return made, keys


def _run(part: Part, known: Mapping[str, Tensor], params: Mapping[str, Any]) -> dict[str, Tensor]:
    own = {name: known[name] for name in part.inputs if name in known}
    numbers = {name: value for name, value in params.items() if name in part.params}
    made = called(part, own, {}, numbers)
    return dict(zip(part.outputs, made))  # noqa: B905  what is kept for gradients lies behind


def _check(plan: Segments, tensors: Mapping[str, Tensor], state: SequenceState) -> None:
    if not isinstance(state, SequenceState):
        raise ArgumentError("state: expected what an earlier call returned")
    if state.source != plan.source:
        raise ArgumentError(
            f"state: expected a state of {plan.name}, got a state of {state.mixer}; a state "
            "continues the mixer that returned it"
        )
    for name in plan.only_first:
        if name in tensors:
            raise ArgumentError(
                f"{name}: it is what {plan.name} starts from, and this call continues from a "
                "state: leave it out"
            )


def _is_left_out(plan: Segments, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the inputs of a step leave the axis out, all or none of them."""
    found = [tensors[n].dim() < axes for n, _, axes in plan.inputs if n in tensors]
    if any(found) and not all(found):
        raise ArgumentError("step: expected the sequence's axis in every input or in none")
    return any(found)


def _as_row(plan: Segments, name: str, tensor: Tensor, left_out: bool) -> Tensor:
    for own, place, _ in plan.inputs:
        if own == name and left_out:
            return tensor.unsqueeze(place)
        if own == name and tensor.shape[place] != 1:
            raise ArgumentError(
                f"{name}: a step is one row; for more rows call "
                f"{plan.name}(..., state=state, return_state=True)"
            )
    return tensor


def _rows(plan: Segments, tensors: Mapping[str, Tensor], made: Mapping[str, Tensor]) -> int:
    for name, place, _ in plan.inputs:
        if name in tensors:
            return tensors[name].shape[place]
    for name, place in plan.outputs:
        return made[name].shape[place]
    raise UnsupportedError(
        f"{plan.name}: no input or output has the sequence as an axis by itself, and torch.compile "
        "can't see how many rows there are: keep the call out with torch.compiler.disable"
    )


def _t(state: SequenceState | None, rows: int) -> int | tuple[int, ...]:
    if state is None:
        return rows
    before = state.t
    return tuple(one + rows for one in before) if isinstance(before, tuple) else before + rows


__all__ = ["traced_segment"]
