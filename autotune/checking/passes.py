"""A backward pass by itself, to check and to time: inputs that belong together.

What a backward pass reads of its forward pass (the log of a total, states at chunk starts) is no
free input: numbers drawn for it would be of no call at all. So the forward pass is run, and
cotangents are all that is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...backends.reference.evaluate import run
from ...compiler.mixers.derivative.differentiate import Derivative
from ...ir.binding import Number
from .gradients import cotangents


@dataclass(frozen=True)
class Origin:
    """What a backward pass is of: both passes, and the sizes and dtype of the mixer itself.

    ``dtype`` is that of its inputs; a backward pass may work in another one.
    """

    derivative: Derivative
    dtype: str
    sizes: Mapping[str, int]
    checked: Mapping[str, int]


def backward_inputs(
    origin: Origin,
    given: Mapping[str, Tensor],
    params: Mapping[str, Number],
    dtype: torch.dtype,
    seed: int,
) -> dict[str, Tensor]:
    """What the backward pass of a call with ``given`` reads: its inputs, what is kept, cotangents.

    The forward pass is the reference's, in float64 on the CPU; real inputs come in ``dtype`` but
    where they have one of their own. Cotangents are normal numbers, 0 where an output is infinite.
    """
    derivative = origin.derivative
    own = {name: tensor.cpu() for name, tensor in given.items()}
    made = run(derivative.forward, own, params, torch.float64)
    return in_backward(origin, {**own, **made}, dtype, seed)


def in_backward(
    origin: Origin, known: Mapping[str, Tensor], dtype: torch.dtype, seed: int
) -> dict[str, Tensor]:
    """The same from a forward pass that was made: its inputs and outputs by name."""
    derivative = origin.derivative
    drawn = cotangents({output: known[output] for output in derivative.cotangents}, dtype, seed)
    above = {name: drawn[output] for output, name in derivative.cotangents.items()}
    read = {**known, **above}
    return {
        i.name: _in_dtype(read[i.name], getattr(torch, i.dtype) if i.dtype else dtype)
        for i in derivative.backward.inputs
        if i.name in read
    }


def _in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor


__all__ = ["Origin", "backward_inputs", "in_backward"]
