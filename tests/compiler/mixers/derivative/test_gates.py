"""Gradients of gates in half precision: differences of what rounding has left of equal numbers."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest
import torch
from torch import Tensor

import mixc
from mixc.autotune.checking.sampling import sample_inputs

GATED = """\
mixer: gated
inputs:
  q: [B, T, H, D]
  k: [B, T, H, D]
  v: [B, T, H, E]
  a: [B, T, H]
recurrence:
  over: T
  state: {S: [D, E]}
  step:
    - S = sigmoid(a) * S + k * v
    - o = sum(q * S, D)
outputs: {o: [B, T, H, E], S: [B, H, D, E]}
"""


def of_gate(spec: Path, inputs: dict[str, Tensor], backend: str) -> Tensor:
    """The gradient of the gate by a random weighting of outputs and last states."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    outputs = mixc.load(spec, backend=backend)(**leaves)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outputs]
    (found,) = torch.autograd.grad(outputs, leaves["a"], weights)
    return found.double()


@pytest.fixture
def gated(tmp_path: Path) -> Path:
    spec = tmp_path / "gated.yaml"
    spec.write_text(GATED)
    return spec


def test_a_gate_before_the_first_write_has_no_gradient(gated: Path) -> None:
    sizes = {"B": 1, "T": 1, "H": 2, "D": 40, "E": 24}
    inputs = sample_inputs(mixc.load(gated).mixer, sizes, torch.float16)
    assert not of_gate(gated, inputs, "interpreter").any()


def test_what_a_row_reads_of_its_own_write_leaves_nothing_in_a_gate(gated: Path) -> None:
    mixer, errors = mixc.load(gated).mixer, []
    for seed in range(4):
        sizes = {"B": 1, "T": 100, "H": 2, "D": 64, "E": 64}
        inputs = sample_inputs(mixer, sizes, torch.float16, seed)
        wide = {name: tensor.double() for name, tensor in inputs.items()}
        wanted = of_gate(gated, wide, "reference")
        lost = of_gate(gated, inputs, "interpreter") - wanted
        errors.append(float(lost.norm() / wanted.norm()))
    assert median(errors) <= torch.finfo(torch.float16).eps
