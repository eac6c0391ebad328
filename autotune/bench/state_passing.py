"""States from chunk to chunk, in torch: operators of their own, with their backward passes.

A graph of many chunks stays small so: a compiled one for each of 64 steps takes minutes to build
and saves nothing. S [X, K, V] goes through chunks [X, N, ...]; a ``whole`` decay has 1 in place of
axes that it does not vary along.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_Tensors = tuple[Tensor, ...]


def pass_states(added: Tensor, whole: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
    """S' = whole * S + added; gives the states before each chunk, and the last."""
    found: tuple[Tensor, Tensor] = _plain()(added, whole, start)
    return found


def pass_corrected(
    added: Tensor | None,
    read: Tensor,
    values: Tensor,
    key: Tensor,
    whole: Tensor | None,
    start: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same where a chunk's values depend on its start: values' = values + read S, and
    S' = whole * S + key values' + added; gives the values, too."""
    found: tuple[Tensor, Tensor, Tensor] = _corrected()(added, read, values, key, whole, start)
    return found


# ------------------------------------------------------------------------- without corrections


@functools.cache
def _plain() -> Any:
    def run(added: Tensor, whole: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
        starts, state = torch.empty_like(added), start.clone()
        for n in range(added.shape[1]):
            starts[:, n] = state
            state = _decayed(state, whole, added, n)
        return starts, state

    made = _operator(
        "pass_states",
        "(Tensor added, Tensor? whole, Tensor start) -> (Tensor, Tensor)",
        run,
        lambda added, whole, start: (torch.empty_like(added), torch.empty_like(start)),
    )
    back = _plain_back()

    def keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: _Tensors) -> None:
        ctx.save_for_backward(inputs[1], output[0])

    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        whole, starts = ctx.saved_tensors
        d_added, d_whole, d_start = back(whole, starts, *above)
        return d_added, None if whole is None else d_whole, d_start

    made.register_autograd(backward, setup_context=keep)
    return made


@functools.cache
def _plain_back() -> Any:
    def run(
        whole: Tensor | None, starts: Tensor, d_starts: Tensor, d_last: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        d_added, d_whole = torch.empty_like(starts), _like_decay(whole, starts)
        above = d_last.clone()
        for n in reversed(range(starts.shape[1])):
            d_added[:, n] = above
            above = _before(above, whole, d_whole, starts, n) + d_starts[:, n]
        return d_added, d_whole, above

    return _operator(
        "pass_states_back",
        "(Tensor? whole, Tensor starts, Tensor d_starts, Tensor d_last)"
        " -> (Tensor, Tensor, Tensor)",
        run,
        lambda whole, starts, d_starts, d_last: (
            torch.empty_like(starts),
            _like_decay(whole, starts),
            torch.empty_like(d_last),
        ),
    )


# ---------------------------------------------------------------------------- with corrections


@functools.cache
def _corrected() -> Any:
    def run(
        added: Tensor | None,
        read: Tensor,
        values: Tensor,
        key: Tensor,
        whole: Tensor | None,
        start: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        starts, found, state = *shapes(added, read, values, key, whole, start)[:2], start.clone()
        for n in range(values.shape[1]):
            starts[:, n] = state
            value = values[:, n] + read[:, n] @ state.to(read.dtype)
            found[:, n] = value
            state = _decayed(state, whole, added, n) + key[:, n] @ value.to(key.dtype)
        return starts, found, state

    def shapes(
        added: Tensor | None,
        read: Tensor,
        values: Tensor,
        key: Tensor,
        whole: Tensor | None,
        start: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        starts = start.new_empty(values.shape[0], values.shape[1], *start.shape[1:])
        return starts, torch.empty_like(values), torch.empty_like(start)

    made = _operator(
        "pass_corrected",
        "(Tensor? added, Tensor read, Tensor values, Tensor key, Tensor? whole, Tensor start)"
        " -> (Tensor, Tensor, Tensor)",
        run,
        shapes,
    )
    back = _corrected_back()

    def keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: _Tensors) -> None:
        added, read, _, key, whole, _ = inputs
        ctx.has_added = added is not None
        ctx.save_for_backward(read, key, whole, *output[:2])

    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        d_added, d_read, d_values, d_key, d_whole, d_start = back(*ctx.saved_tensors, *above)
        d_whole = None if ctx.saved_tensors[2] is None else d_whole
        return d_added if ctx.has_added else None, d_read, d_values, d_key, d_whole, d_start

    made.register_autograd(backward, setup_context=keep)
    return made


@functools.cache
def _corrected_back() -> Any:
    def run(
        read: Tensor,
        key: Tensor,
        whole: Tensor | None,
        starts: Tensor,
        found: Tensor,
        d_starts: Tensor,
        d_found: Tensor,
        d_last: Tensor,
    ) -> _Tensors:
        given = (read, key, whole, starts, found, d_starts, d_found, d_last)
        d_added, d_read, d_values, d_key, d_whole, _ = shapes(*given)
        above = d_last.clone()
        for n in reversed(range(starts.shape[1])):
            low, state = above.to(key.dtype), starts[:, n].to(read.dtype)
            value = d_found[:, n] + key[:, n].mT @ low
            d_added[:, n], d_values[:, n] = above, value
            d_key[:, n] = low @ found[:, n].to(key.dtype).mT
            value = value.to(read.dtype)
            d_read[:, n] = value @ state.mT
            above = _before(above, whole, d_whole, starts, n) + read[:, n].mT @ value
            above = above + d_starts[:, n]
        return d_added, d_read, d_values, d_key, d_whole, above

    def shapes(
        read: Tensor,
        key: Tensor,
        whole: Tensor | None,
        starts: Tensor,
        found: Tensor,
        d_starts: Tensor,
        d_found: Tensor,
        d_last: Tensor,
    ) -> _Tensors:
        made = [torch.empty_like(t) for t in (starts, read, found, key)]
        return *made, _like_decay(whole, starts), torch.empty_like(d_last)

    given = "read, key, whole, starts, found, d_starts, d_found, d_last".split(", ")
    kinds = ", ".join(f"Tensor{'?' if name == 'whole' else ''} {name}" for name in given)
    tensors = ", ".join(["Tensor"] * 6)
    return _operator("pass_corrected_back", f"({kinds}) -> ({tensors})", run, shapes)


def _decayed(state: Tensor, whole: Tensor | None, added: Tensor | None, n: int) -> Tensor:
    if whole is None:
        return state if added is None else state + added[:, n]
    if added is None:
        return state * whole[:, n]
    return torch.addcmul(added[:, n], state, whole[:, n])


def _before(above: Tensor, whole: Tensor | None, d_whole: Tensor, starts: Tensor, n: int) -> Tensor:
    """What a chunk's decay passes back, and its own gradient into ``d_whole``."""
    if whole is None:
        return above
    d_whole[:, n] = (above * starts[:, n]).sum_to_size(d_whole[:, n].shape)
    return above * whole[:, n]


def _like_decay(whole: Tensor | None, starts: Tensor) -> Tensor:
    return starts.new_empty(0) if whole is None else torch.empty_like(whole)


def _operator(name: str, schema: str, run: Callable[..., Any], shapes: Callable[..., Any]) -> Any:
    made = torch.library.custom_op(f"mixc::{name}", run, mutates_args=(), schema=schema)
    made.register_fake(shapes)
    return made


__all__ = ["pass_corrected", "pass_states"]
