"""The two passes of a mixer that is trained through, by generated kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..compiler.mixers.derivative.differentiate import Derivative
from ..ir.binding import Number
from ..ir.plan_memory import bytes_beside, bytes_given_and_made

if TYPE_CHECKING:
    from ..ir.plan import Plan
    from .backends import Runner


@dataclass(frozen=True)
class Passes:
    """The two passes of a mixer with their kernels, for inputs of which some want a gradient.

    ``backward_dtype``: the precision that the backward pass works in; None: that of the inputs.
    ``backward_plan`` tells what it takes in memory; None where there is nothing to compute.
    """

    name: str  # of the mixer
    derivative: Derivative
    forward: Runner
    backward: Runner
    backward_dtype: torch.dtype | None
    backward_plan: Plan | None

    @property
    def kept(self) -> tuple[str, ...]:
        """What the forward pass makes for the backward pass."""
        return self.derivative.kept

    @property
    def needed(self) -> frozenset[str]:
        """What the backward pass reads."""
        return frozenset(i.name for i in self.derivative.backward.inputs)

    @property
    def cotangents(self) -> Mapping[str, str]:
        """What the backward pass calls the cotangent of an output."""
        return self.derivative.cotangents

    def kept_bytes(self, sizes: Mapping[str, int]) -> int:
        """What is alive beside inputs and results at these sizes, most of it for every row."""
        if self.backward_plan is None:
            return 0
        return bytes_beside(self.backward_plan, self.kept, sizes)

    def given_bytes(self, sizes: Mapping[str, int]) -> int:
        """What the backward pass is given and makes at these sizes."""
        if self.backward_plan is None:
            return 0
        return bytes_given_and_made(self.backward_plan, self.kept, sizes)

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


def _ready(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor in memory of its own where its elements share some, in the pass's precision."""
    if 0 in tensor.stride() and tensor.numel() > 1:
        tensor = tensor.contiguous()
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


__all__ = ["Passes"]
