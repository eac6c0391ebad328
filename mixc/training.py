"""Calls that gradients go through: forward and backward by generated kernels, under autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .compiler.mixers.differentiate import Derivative, differentiate
from .compiler.pipeline import lower
from .ir.binding import Number, bind_sizes
from .ir.errors import UnsupportedError
from .ir.mixer import Mixer, Recurrence
from .ir.optional import without_inputs
from .ir.roles import feature_dims

if TYPE_CHECKING:
    from .running import Runner


@dataclass(frozen=True)
class Passes:
    """The two passes of a mixer with their kernels, for inputs of which some want a gradient.

    ``backward_dtype``: the precision that the backward pass works in; None: that of the inputs.
    """

    derivative: Derivative
    forward: Runner
    backward: Runner
    backward_dtype: torch.dtype | None


class Training:
    """A mixer that is trained through; kernels are made once for each set of inputs that want a
    gradient.

    ``runner`` makes the kernels of a mixer.
    """

    def __init__(self, mixer: Mixer, runner: Callable[[Mixer], Runner]) -> None:
        self.mixer = mixer
        self.runner = runner
        self.passes: dict[object, Passes | str] = {}

    def __call__(
        self, tensors: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> dict[str, Tensor]:
        """The outputs by name, with a backward pass.

        Raises:
            UnsupportedError: a derivative that is not there, or that no kernel computes.
        """
        wanted = tuple(name for name, tensor in tensors.items() if tensor.requires_grad)
        dtypes = tuple(tensor.dtype for tensor in tensors.values())
        key = (tuple(tensors), wanted, dtypes)
        if key not in self.passes:
            self.passes[key] = self._made(tensors, params, wanted)
        passes = self.passes[key]
        if isinstance(passes, str):
            raise UnsupportedError(passes)
        names = tuple(output.name for output in self.mixer.outputs)
        apply: Callable[..., tuple[Tensor, ...]] = _Pass.apply
        made = apply(passes, params, names, tuple(tensors), *tensors.values())
        return dict(zip(names, made, strict=True))

    def _made(
        self, tensors: Mapping[str, Tensor], params: Mapping[str, Number], wanted: tuple[str, ...]
    ) -> Passes | str:
        """The passes; or why there are none, which is asked once."""
        mixer = without_inputs(
            self.mixer, [i.name for i in self.mixer.inputs if i.name not in tensors]
        )
        try:
            derivative = differentiate(mixer, wanted)
            recurrent = any(isinstance(stage, Recurrence) for stage in mixer.stages)
            dtype = torch.float32 if recurrent else None
            sizes = bind_sizes(mixer, {n: tuple(t.shape) for n, t in tensors.items()}, params)
            fixed = {dim: sizes[dim] for dim in feature_dims(derivative.backward) if dim in sizes}
            first = next(tensors[name].dtype for name in wanted)
            lower(derivative.backward, fixed, str(dtype or first).removeprefix("torch."))
        except UnsupportedError as error:
            return str(error)
        return Passes(
            derivative, self.runner(derivative.forward), self.runner(derivative.backward), dtype
        )


class _Pass(torch.autograd.Function):
    """One call of the forward kernels, and of the backward kernels where a gradient is asked."""

    @staticmethod
    def forward(
        ctx: Any,
        passes: Passes,
        params: Mapping[str, Number],
        outputs: tuple[str, ...],
        names: tuple[str, ...],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        given = dict(zip(names, tensors, strict=True))
        read = {i.name for i in passes.derivative.forward.inputs}
        made = passes.forward({n: t.detach() for n, t in given.items() if n in read}, params)
        kept = {name: made[name] for name in passes.derivative.kept}
        needed = {i.name for i in passes.derivative.backward.inputs}
        saved = {n: t for n, t in {**given, **kept}.items() if n in needed}
        ctx.save_for_backward(*saved.values())
        ctx.passes, ctx.params, ctx.names, ctx.saved = passes, params, names, tuple(saved)
        ctx.outputs, ctx.dtypes = outputs, {n: t.dtype for n, t in given.items()}
        results = tuple(made[name] for name in outputs)
        ctx.mark_non_differentiable(*(r for r in results if not r.is_floating_point()))
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        derivative: Derivative = ctx.passes.derivative
        above = dict(zip(ctx.outputs, cotangents, strict=True))
        given = dict(zip(ctx.saved, ctx.saved_tensors, strict=True))
        given |= {name: above[output] for output, name in derivative.cotangents.items()}
        needed = {i.name for i in derivative.backward.inputs}
        ready = {n: _ready(t, ctx.passes.backward_dtype) for n, t in given.items() if n in needed}
        made = ctx.passes.backward(ready, ctx.params)
        gradients = [
            made[derivative.gradients[name]].to(ctx.dtypes[name])
            if name in derivative.gradients
            else None
            for name in ctx.names
        ]
        return (None, None, None, None, *gradients)


def _ready(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor in memory of its own where its elements share some, in the pass's precision."""
    if 0 in tensor.stride() and tensor.numel() > 1:
        tensor = tensor.contiguous()
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


__all__ = ["Training"]
