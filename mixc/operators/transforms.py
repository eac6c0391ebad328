"""Mixers inside transforms of torch.func: gradients and mapped axes, nested in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..runtime.training import second_derivative
from .definitions import backward, forward
from .mapped import mapped
from .recording import gradients_in, keep_for_backward, recording_of


class Forward(torch.autograd.Function):
    """The operator ``mixc::forward``, as transforms take it."""

    @staticmethod
    def forward(mixer: str, call: str, params: list[float], *tensors: Tensor) -> Any:
        return tuple(forward(mixer, call, list(tensors), params))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        mixer, call, params, *tensors = inputs
        needs = ctx.needs_input_grad[3:]
        keep_for_backward(ctx, mixer, call, tensors, params, output, needs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        apply: Callable[..., tuple[Tensor, ...]] = Backward.apply
        gradients = gradients_in(
            ctx,
            cotangents,
            ctx.needs_input_grad[3:],
            lambda given: apply(ctx.mixer, ctx.later, ctx.params, *given),
        )
        return (None, None, None, *gradients)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _mapped(Forward, info, in_dims, *inputs)


class Backward(torch.autograd.Function):
    """The operator ``mixc::backward``; it has no derivative."""

    @staticmethod
    def forward(mixer: str, call: str, params: list[float], *tensors: Tensor) -> Any:
        return tuple(backward(mixer, call, list(tensors), params))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.name = recording_of(*inputs[:2]).mixer.name

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> None:
        raise second_derivative(ctx.name)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> Any:
        return _mapped(Backward, info, in_dims, *inputs)


def _mapped(
    function: Any,
    info: Any,
    in_dims: tuple[Any, ...],
    mixer: str,
    call: str,
    params: list[float],
    *tensors: Tensor,
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    def apply(mixer: str, call: str, rows: Sequence[Tensor], params: list[float]) -> list[Tensor]:
        return list(function.apply(mixer, call, params, *rows))

    places = (None, None, in_dims[3:], None)
    made, out_dims = mapped(apply, info, places, mixer, call, tensors, params)
    return tuple(made), tuple(out_dims)


def wants_gradient(tensor: Tensor) -> bool:
    """Whether a gradient of a tensor is asked for, at any level of transforms."""
    while not tensor.requires_grad and torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.requires_grad


__all__ = ["Backward", "Forward", "wants_gradient"]
