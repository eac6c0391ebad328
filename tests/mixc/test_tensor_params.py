"""Run-time params that are given as tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixc.api import LoadedMixer
from mixc.compiler.language.load import load_text
from mixc.ir.errors import ArgumentError

SPEC = """
mixer: m
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E]}
dims: {I: T, J: T}
params:
  sharpness: {default: 1.0, runtime: true}
MORE
attention:
  over: J
  score: sharpness * sum(q * k, D)
  mask: j <= i
  output: {o: v}
outputs: {o: [B, I, E]}
"""


def loaded(more: str = "") -> LoadedMixer:
    return LoadedMixer(load_text(SPEC.replace("MORE", more)), "reference")


def drawn() -> list[Tensor]:
    return [torch.randn(2, 7, width, dtype=torch.float64) for width in (4, 4, 3)]


def test_they_have_gradients() -> None:
    mixer, inputs = loaded(), drawn()
    sharpness = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(mixer(*inputs, sharpness=sharpness).square().sum(), sharpness)
    higher, lower = (mixer(*inputs, sharpness=0.6 + step).square().sum() for step in (1e-6, -1e-6))
    assert float(found) == pytest.approx(float(higher - lower) / 2e-6, rel=1e-6)
    _, state = mixer.step(*(t[:, 0] for t in inputs), sharpness=sharpness)
    row, _ = mixer.step(*(t[:, 1] for t in inputs), state=state, sharpness=sharpness)
    torch.testing.assert_close(row, mixer(*inputs, sharpness=sharpness)[:, 1])


def test_they_are_the_numbers_that_they_hold() -> None:
    mixer, inputs = loaded(), drawn()
    for dtype in (torch.float64, torch.bfloat16):
        by_tensor = mixer(*inputs, sharpness=torch.tensor(0.5, dtype=dtype))
        assert torch.equal(by_tensor, mixer(*inputs, sharpness=0.5))
    with pytest.raises(ArgumentError, match="sharpness"):
        mixer(*inputs, sharpness=torch.ones(3))


def test_what_another_param_is_made_from_stays_a_number() -> None:
    mixer = loaded("  twice: 2 * sharpness")
    with pytest.raises(ArgumentError, match="sharpness: expected a number, since twice is made"):
        mixer(*drawn(), sharpness=torch.tensor(0.5))
