"""Mixers as operators of PyTorch, which compilers, exporters, tracers and transforms see whole.

``mixc::forward`` and ``mixc::backward`` serve all mixers. The first argument says which one, by its
equations: so a saved program holds them, and runs in any process that has imported this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..runtime.training import second_derivative
from ..stepping.state import register_as_tree
from .mapped import mapped
from .recording import gradients_in, keep_for_backward, recording_of

_FORWARD = "(str mixer, str call, Tensor[] tensors, float[] params) -> Tensor[]"


@torch.library.custom_op("mixc::forward", mutates_args=(), schema=_FORWARD)
def forward(mixer: str, call: str, tensors: list[Tensor], params: list[float]) -> list[Tensor]:
    """The outputs of a mixer, and behind them what a backward pass keeps."""
    return recording_of(mixer, call).forward(tensors, params)


@torch.library.custom_op("mixc::backward", mutates_args=(), schema=_FORWARD)
def backward(mixer: str, call: str, tensors: list[Tensor], params: list[float]) -> list[Tensor]:
    """The gradients of the inputs that want one."""
    return recording_of(mixer, call).backward(tensors, params)


@forward.register_fake
def _(mixer: str, call: str, tensors: list[Tensor], params: list[float]) -> list[Tensor]:
    return recording_of(mixer, call).outline(tensors, params)


@backward.register_fake
def _(mixer: str, call: str, tensors: list[Tensor], params: list[float]) -> list[Tensor]:
    return recording_of(mixer, call).outline_backward(tensors, params)


def _save(ctx: Any, inputs: tuple[str, str, list[Tensor], list[float]], output: Any) -> None:
    keep_for_backward(ctx, *inputs, output, ctx.needs_input_grad[2:])  # lists are flat


def _differentiate(ctx: Any, cotangents: Sequence[Tensor]) -> tuple[Any, ...]:
    gradients = gradients_in(
        ctx,
        cotangents,
        ctx.needs_input_grad[2],
        lambda given: backward(ctx.mixer, ctx.later, given, ctx.params),
    )
    return None, None, gradients, None if ctx.params else []  # a list of none is one of tensors


def _remember_name(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.name = recording_of(*inputs[:2]).mixer.name


def _refuse(ctx: Any, *above: Any) -> Any:
    raise second_derivative(ctx.name)


forward.register_autograd(_differentiate, setup_context=_save)
backward.register_autograd(_refuse, setup_context=_remember_name)
forward.register_vmap(partial(mapped, forward))
backward.register_vmap(partial(mapped, backward))
register_as_tree()
