"""Gradients as outputs: what a check compares where a mixer is trained.

The loss is a random weighting of all real outputs, the same whatever runs the mixer, so that
every check of outputs is one of gradients too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...ir.expression import Kind
from ...ir.mixer import Mixer

Run = Callable[["Mapping[str, Tensor]"], "Mapping[str, Tensor]"]
# What of a run is compared: its outputs by name, or its gradients.
Measure = Callable[[Run, "Mapping[str, Tensor]"], "Mapping[str, Tensor]"]


def outputs_of(run: Run, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The outputs of ``run`` as they are."""
    return run(inputs)


def gradients_of(mixer: Mixer, dtype: torch.dtype, seed: int) -> Measure:
    """Gradients by the inputs of ``mixer`` that have one, named ``gradient of`` the input.

    The weights of the outputs are normal numbers, rounded to ``dtype``; those of infinite outputs
    (the log of a total where nothing is visible) are 0, since these are constants.
    """
    trained = [i.name for i in mixer.inputs if i.kind is Kind.REAL and i.grad]

    def measure(run: Run, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        leaves = {n: inputs[n].detach().requires_grad_() for n in trained if n in inputs}
        with torch.enable_grad():
            outputs = run({**inputs, **leaves})
            reached = {n: o for n, o in outputs.items() if o.requires_grad}
        weights = cotangents(outputs, dtype, seed)
        found = torch.autograd.grad(
            list(reached.values()),
            list(leaves.values()),
            [weights[name] for name in reached],
            materialize_grads=True,
        )
        return {f"gradient of {n}": g for n, g in zip(leaves, found, strict=True)}

    return measure


def cotangents(outputs: Mapping[str, Tensor], dtype: torch.dtype, seed: int) -> dict[str, Tensor]:
    """Normal numbers, rounded to ``dtype``, in the shape and dtype of each output; 0 where it is
    infinite."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, output in outputs.items():
        drawn = torch.randn(output.shape, generator=generator).to(dtype)
        made[name] = torch.where(output.detach().isfinite(), drawn.to(output), 0)
    return made


__all__ = ["Measure", "Run", "cotangents", "gradients_of", "outputs_of"]
