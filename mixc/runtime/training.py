"""Calls that gradients go through: forward and backward by generated kernels, under autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compiler.mixers.derivative.differentiate import Derivative, differentiate
from ..compiler.pipeline import lower
from ..ir.binding import Number, bind_sizes
from ..ir.errors import UnsupportedError
from ..ir.mixer import Mixer
from ..ir.optional import without_inputs
from ..ir.roles import feature_dims

if TYPE_CHECKING:
    from .backends import Runner


@dataclass(frozen=True)
class Passes:
    """The two passes of a mixer with their kernels, for inputs of which some want a gradient.

    ``backward_dtype``: the precision that the backward pass works in; None: that of the inputs.
    """

    name: str  # of the mixer
    derivative: Derivative
    forward: Runner
    backward: Runner
    backward_dtype: torch.dtype | None

    def run_forward(
        self, given: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> Mapping[str, Tensor]:
        """The outputs and what is kept, by name."""
        read = {i.name for i in self.derivative.forward.inputs}
        return self.forward({n: t.detach() for n, t in given.items() if n in read}, params)

    def run_backward(
        self, given: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> dict[str, Tensor]:
        """The gradients by input, from what the backward pass reads; none for those of which no
        output is more than a step function."""
        if not self.derivative.gradients:
            return {}
        names = [i.name for i in self.derivative.backward.inputs]
        ready = {n: _ready(given[n], self.backward_dtype) for n in names if n in given}
        made = self.backward(ready, params)
        return {name: made[own] for name, own in self.derivative.gradients.items()}


class Training:
    """A mixer that is trained through; kernels are made once for each set of inputs that want a
    gradient.

    ``runner`` makes the kernels of a mixer; ``narrow``: their products take 16 bits, so backward
    passes need not work in float32.
    """

    def __init__(
        self, mixer: Mixer, runner: Callable[[Mixer], Runner], narrow: bool = False
    ) -> None:
        self.mixer = mixer
        self.runner = runner
        self.narrow = narrow
        self.passes: dict[object, Passes | str] = {}

    def __call__(
        self, tensors: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> dict[str, Tensor]:
        """The outputs by name, with a backward pass.

        Raises:
            UnsupportedError: a derivative that is not there, or that no kernel computes.
        """
        wanted = tuple(name for name, tensor in tensors.items() if tensor.requires_grad)
        dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        passes = self.of(dtypes, wanted, lambda _: bind_sizes(self.mixer, shapes, params))
        names = tuple(output.name for output in self.mixer.outputs)
        apply: Callable[..., tuple[Tensor, ...]] = _Pass.apply
        made = apply(passes, params, names, tuple(tensors), *tensors.values())
        return dict(zip(names, made, strict=True))

    def of(
        self,
        dtypes: Mapping[str, torch.dtype],
        wanted: tuple[str, ...],
        sizes: Callable[[Derivative], Mapping[str, int]],
    ) -> Passes:
        """The two passes for inputs of these dtypes, of which some want a gradient.

        ``sizes`` gives those of a call, of which kernels need to know the features.

        Raises:
            UnsupportedError: there are none; the reason is found once.
        """
        key = (tuple(dtypes.items()), wanted)
        if key not in self.passes:
            self.passes[key] = self._made(dtypes, wanted, sizes)
        passes = self.passes[key]
        if isinstance(passes, str):
            raise UnsupportedError(passes)
        return passes

    def _made(
        self,
        dtypes: Mapping[str, torch.dtype],
        wanted: tuple[str, ...],
        sizes: Callable[[Derivative], Mapping[str, int]],
    ) -> Passes | str:
        """The passes; or why there are none."""
        mixer = without_inputs(
            self.mixer, [i.name for i in self.mixer.inputs if i.name not in dtypes]
        )
        try:
            derivative = differentiate(mixer, wanted)
            in_float32 = derivative.in_float32 and not self.narrow
            dtype = torch.float32 if in_float32 else None
            known, features = sizes(derivative), feature_dims(derivative.backward)
            fixed = {dim: int(known[dim]) for dim in features if dim in known}
            first = next(dtypes[name] for name in wanted)
            if derivative.gradients:
                lower(derivative.backward, fixed, str(dtype or first).removeprefix("torch."))
        except UnsupportedError as error:
            return str(error)
        forward, backward = self.runner(derivative.forward), self.runner(derivative.backward)
        return Passes(self.mixer.name, derivative, forward, backward, dtype)


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
        made = passes.run_forward(given, params)
        kept = {name: made[name] for name in passes.derivative.kept}
        needed = {i.name for i in passes.derivative.backward.inputs}
        saved = {n: t for n, t in {**given, **kept}.items() if n in needed}
        ctx.save_for_backward(*saved.values())
        ctx.passes, ctx.params, ctx.names, ctx.saved = passes, params, names, tuple(saved)
        ctx.outputs, ctx.dtypes = outputs, {n: t.dtype for n, t in given.items()}
        ctx.shapes = shapes_of(tensors)
        results = tuple(made[name] for name in outputs)
        ctx.mark_non_differentiable(*(r for r in results if not r.is_floating_point()))
        return results

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        derivative: Derivative = ctx.passes.derivative
        above = dict(zip(ctx.outputs, cotangents, strict=True))
        given = dict(zip(ctx.saved, ctx.saved_tensors, strict=True))
        given |= {name: above[output] for output, name in derivative.cotangents.items()}
        with torch.no_grad():
            made = ctx.passes.run_backward(given, ctx.params)
            found = {name: tensor.to(ctx.dtypes[name]) for name, tensor in made.items()}
        if torch.is_grad_enabled():  # the caller means to differentiate the gradients
            leaves = (tensor.requires_grad_() for tensor in found.values())
            once: Callable[..., tuple[Tensor, ...]] = _Once.apply
            found = dict(zip(found, once(ctx.passes.name, *leaves), strict=True))
        gradients = [found.get(name) for name in ctx.names]
        return (
            None,
            None,
            None,
            None,
            *with_zeros(ctx.needs_input_grad[4:], ctx.shapes, gradients),
        )


def shapes_of(tensors: Sequence[Tensor]) -> list[tuple[Any, ...]]:
    """What a gradient of each tensor is like."""
    return [(tuple(t.shape), t.dtype, t.device) for t in tensors]


def with_zeros(
    needs: Sequence[bool], shapes: Sequence[tuple[Any, ...]], gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients, 0 where one is needed of an input that outputs are step functions of."""
    return [
        torch.zeros(shape, dtype=dtype, device=device) if gradient is None and needed else gradient
        for gradient, needed, (shape, dtype, device) in zip(gradients, needs, shapes, strict=True)
    ]


class _Once(torch.autograd.Function):
    """Gradients that are not differentiated again."""

    @staticmethod
    def forward(ctx: Any, name: str, *gradients: Tensor) -> tuple[Tensor, ...]:
        ctx.name = name
        return tuple(gradient.detach() for gradient in gradients)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> None:
        raise second_derivative(ctx.name)


def second_derivative(name: str) -> UnsupportedError:
    """What is said where gradients are differentiated once more."""
    return UnsupportedError(
        f"{name}: kernels compute no gradient of a gradient; load it with backend='reference', "
        "which torch differentiates as often as one likes"
    )


def _ready(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor in memory of its own where its elements share some, in the pass's precision."""
    if 0 in tensor.stride() and tensor.numel() > 1:
        tensor = tensor.contiguous()
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


__all__ = ["Passes", "Training", "second_derivative", "shapes_of", "with_zeros"]
