"""What rounding alone does to the equations of a backward pass.

Autograd takes the gradient of a decay row by row, from the state and its cotangent, which it keeps
for every row. A backward pass of linear memory has it as a difference of running sums, and weights
of attention from a logarithm that was rounded once: right to the last digit in exact arithmetic,
but what the sums lose grows with the number of rows. So no kernel of such a pass can be held to
twice the error of autograd. It is held to twice the error of its own equations instead: the
reference executes them, the same numbers once in float32 and once in float64, and their distance
is the error. A pass with wrong equations gains nothing, for they are as wrong in either precision.

What the forward pass keeps is rounded, too, and the reference's rounding may be lucky: where one
score is far above the others, the log of their total is that score to the bit, which the backward
pass takes off again. So the other draws keep it a rounding further off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...backends.reference.evaluate import run
from ...compiler.mixers.derivative.differentiate import Derivative, differentiate
from ...ir.binding import Number
from ...ir.errors import UnsupportedError
from ...ir.expression import Literal
from ...ir.mixer import Mixer
from ...ir.optional import without_inputs
from .gradients import Measure, Run
from .one_thread import one_thread
from .tolerances import error_limit, errors_of

# An error may be small by luck, that of a gradient that is a single number above all: inputs that
# differ from those of the trial by up to this part, or a few eps, tell how large it is in general.
_PERTURBED = 2.0**-10
_DRAWS = 4
# Where something is chosen, plain PyTorch may choose another on such inputs: its error says little.
_MOST_BY_LUCK = 2.0


def rounding_errors(
    mixer: Mixer,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Number],
    dtype: torch.dtype,
    measure: Measure,
    draw: int,
    whole: Callable[[Run], Run] = lambda alone: alone,
) -> dict[str, float]:
    """The error of float32 in the equations of the backward pass, by what ``measure`` compares.

    Args:
        dtype: of the kernels whose errors these are compared with.
        measure: compares gradients.
        draw: 0 for the inputs as they are, else the number of others close to them.
        whole: what a run of ``mixer`` is part of, where it takes several: of documents, say.

    Empty where the derivative is not there.
    """
    given = near(inputs, draw)

    def measured(dtype: torch.dtype) -> Mapping[str, Tensor]:
        return measure(whole(lambda own: by_derivative(mixer, own, params, dtype, draw)), given)

    try:
        with one_thread():
            single, double = measured(torch.float32), measured(torch.float64)
    except UnsupportedError:
        return {}
    return errors_of(dtype, single, double, gradients=True)


def wider_limits(
    dtype: torch.dtype,
    limits: Mapping[str, float],
    errors: Callable[[int], Mapping[str, float]],
    usual: Callable[[int], Mapping[str, float]] = lambda draw: {},
) -> Iterator[dict[str, float]]:
    """``limits``, those of other draws where they are wider, a draw more each time.

    Args:
        errors: what rounding does in a draw to a pass's own equations; without a name for outputs.
        usual: the error of plain PyTorch in a draw. It widens a limit to twice what it is at most.
    """
    own = dict(limits)
    for draw in range(_DRAWS):
        for name, error in errors(draw).items():
            own[name] = max(own[name], error_limit(dtype, error))
        for name, error in usual(draw).items():
            most = _MOST_BY_LUCK * limits[name]
            own[name] = max(own[name], min(error_limit(dtype, error), most))
        yield dict(own)


def by_derivative(
    mixer: Mixer,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number],
    dtype: torch.dtype,
    draw: int = 0,
) -> dict[str, Tensor]:
    """The outputs by the reference in ``dtype``; their gradients by the derivative's equations.

    ``draw``: where it is not 0, float32 values that are kept for the gradients are up to an eps
    off, other ones in each draw.
    """
    wanted = tuple(name for name, tensor in tensors.items() if tensor.requires_grad)
    own = without_inputs(mixer, [i.name for i in mixer.inputs if i.name not in tensors])
    # A derivative counts on the values of its mixer's params.
    values = {name: Literal(value) for name, value in params.items()}
    own = replace(
        own, params=tuple(replace(p, value=values.get(p.name, p.value)) for p in own.params)
    )
    apply: Callable[..., tuple[Tensor, ...]] = _ByDerivative.apply
    derivative = differentiate(own, wanted)
    made = apply(derivative, params, dtype, draw, tuple(tensors), *tensors.values())
    return dict(zip((o.name for o in mixer.outputs), made, strict=False))


def near(inputs: Mapping[str, Tensor], draw: int) -> Mapping[str, Tensor]:
    """Other inputs, each number a little closer to 0; the same ones for draw 0."""
    if draw == 0:
        return inputs
    return _moved(inputs, draw, lambda part, eps: 1 - max(_PERTURBED, 4 * eps) * part)


def _moved(
    tensors: Mapping[str, Tensor], draw: int, factor: Callable[[Tensor, float], Tensor]
) -> dict[str, Tensor]:
    """Every real number times ``factor`` of a random one from 0 to 1, and its dtype's eps."""
    generator = torch.Generator().manual_seed(draw)

    def change(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        part = torch.rand(tensor.shape, generator=generator)
        return (tensor * factor(part, torch.finfo(tensor.dtype).eps)).to(tensor.dtype)

    return {name: change(tensor) for name, tensor in tensors.items()}


class _ByDerivative(torch.autograd.Function):
    """Both passes by the reference."""

    @staticmethod
    def forward(
        ctx: Any,
        derivative: Derivative,
        params: Mapping[str, Number],
        dtype: torch.dtype,
        draw: int,
        names: tuple[str, ...],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        given = dict(zip(names, tensors, strict=True))
        made = run(derivative.forward, given, params, dtype)
        ctx.derivative, ctx.params, ctx.dtype, ctx.names = derivative, params, dtype, names
        kept = {name: made[name].detach() for name in derivative.kept}
        if draw and dtype is torch.float32:
            kept = _moved(kept, draw, lambda part, eps: 1 + eps * (2 * part - 1))
        ctx.given = {**given, **kept}
        ctx.outputs = tuple(made)
        outputs = tuple(made.values())
        ctx.mark_non_differentiable(*(o for o in outputs if not o.is_floating_point()))
        return outputs

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor | None, ...]:
        derivative: Derivative = ctx.derivative
        told = dict(zip(ctx.outputs, above, strict=True))
        given = {**ctx.given, **{own: told[name] for name, own in derivative.cotangents.items()}}
        read = {i.name: given[i.name] for i in derivative.backward.inputs if i.name in given}
        made = run(derivative.backward, read, ctx.params, ctx.dtype) if derivative.gradients else {}
        found = {name: made[own] for name, own in derivative.gradients.items()}
        return (None, None, None, None, None, *(found.get(name) for name in ctx.names))


__all__ = ["by_derivative", "near", "rounding_errors", "wider_limits"]
