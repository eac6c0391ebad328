"""Float32 rows beside 16-bit tensors: each is read as it is."""

import pytest
import torch

import mixc
from mixc.api import LoadedMixer
from mixc.compiler.language.load import load_text
from mixc.ir.errors import ArgumentError

SPEC = """\
mixer: biased
inputs: {{q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E], slope: {slope}}}
dims: {{I: T, J: T}}
attention:
  over: J
  score: D ** -0.5 * sum(q * k, D) - slope * (i - j)
  mask: j <= i
  output: {{o: v}}
outputs: {{o: [B, H, I, E]}}
"""


@pytest.mark.parametrize("backend", ["cpu", "interpreter"])
@pytest.mark.parametrize("slope", ["[H]", "{dims: [H], dtype: float32}"])
def test_a_float32_slope_beside_16_bit_tensors_keeps_its_digits(slope, backend):
    make = torch.Generator().manual_seed(0)
    mixer = load_text(SPEC.format(slope=slope))
    q, k, v = (torch.randn(1, 2, 48, 16, generator=make).bfloat16() for _ in range(3))
    steep = torch.tensor([-1.0039, 0.3])  # 1.0 in bfloat16: 0.18 of a score after 47 positions
    exact = LoadedMixer(mixer, "reference")(*(x.double() for x in (q, k, v, steep)))
    found = LoadedMixer(mixer, backend)(q, k, v, steep)
    assert found.dtype is torch.bfloat16
    assert (found.double() - exact).abs().max() < 2e-2


@pytest.mark.parametrize("backend", ["cpu", "interpreter"])
def test_rows_in_float32_are_not_rounded(backend):
    text = "mixer: m\ninputs: {x: [B, T], y: [B, T]}\nmap: {o: 1e4 * (x - y)}\noutputs: {o: [B, T]}"
    x = torch.rand(2, 5, generator=torch.Generator().manual_seed(0)) + 1
    y = x.bfloat16()
    found = LoadedMixer(load_text(text), backend)(x, y)
    assert found.dtype is torch.bfloat16
    wanted = 1e4 * (x.double() - y.double())
    torch.testing.assert_close(found.double(), wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("backend", ["cpu", "interpreter"])
def test_gates_in_float32_beside_16_bit_tensors(backend):
    make = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 40, 2, 16, generator=make).half() for _ in range(3))
    gate = torch.randn(1, 40, 2, 16, generator=make).sigmoid().log()
    found = mixc.load("gla", backend=backend)(q, k, v, gate).o
    exact = mixc.load("gla", backend="reference")(*(x.double() for x in (q, k, v, gate))).o
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-2)


def test_other_mixtures_are_refused():
    q = torch.zeros(1, 2, 5, 8)
    for first, second in ((torch.half, torch.bfloat16), (torch.float64, torch.bfloat16)):
        with pytest.raises(ArgumentError, match=r"k: expected float.*, got bfloat16 \(one dtype"):
            mixc.load("causal", backend="cpu")(q.to(first), q.to(second), q.to(first))
