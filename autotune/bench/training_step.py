"""A training step to time: forward and backward of a call, and the backward pass alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._functorch import config

from .peers import Call


@dataclass(frozen=True)
class Step:
    """``whole`` is forward and backward; ``backward`` repeats the backward pass of one forward."""

    whole: Callable[[], Any]
    backward: Callable[[], Any]


def training_step(call: Call, output: str) -> Step:
    """The gradients of a random weighting of an output by all real operands of a call."""
    operands = [t.requires_grad_() for t in call.operands if t.is_floating_point()]

    def forward() -> torch.Tensor:
        with torch.enable_grad():
            return call.results(call.run())[output]

    # Compiled code else takes the memory of what it keeps for results, and runs back only once.
    config.donated_buffer = False
    kept = forward()
    weights = torch.randn(kept.shape, generator=torch.Generator().manual_seed(0)).to(kept)

    def whole() -> Any:
        return torch.autograd.grad(forward(), operands, weights)

    def backward() -> Any:
        return torch.autograd.grad(kept, operands, weights, retain_graph=True)

    return Step(whole, backward)


__all__ = ["Step", "training_step"]
