"""Maps that read and write where their tensors lie: the numbers of torch at every edge, and text
without a copy where a tile is whole. Sums of a few terms stand in that text term by term."""

from __future__ import annotations

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mixc.backends.cpu.run import CpuRunner
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.pipeline import lower
from mixc.ir.mixer import Mixer
from mixc.ir.tile import For, all_ops
from mixc.runtime.overrides import override

TYPES = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}
FUNCTIONS = """
mixer: gated
inputs: {x: [B, T, C], y: [B, T, C]}
map:
  z: x * sigmoid(y)
  s: sum(x * y, C)
outputs: {z: [B, T, C], s: [B, T]}
"""
TURNED = """
mixer: turned
inputs: {x: [B, T, C]}
map: {y: 2 * x - 1}
outputs: {y: [B, C, T]}
"""
MANY = """
mixer: many
inputs: {x: [B, T, C], w: [C, K]}
map: {y: "sum(x[T=t - k] * w, K)"}
outputs: {y: [B, T, C]}
"""


@cache
def taps_of(dilation: int = 1) -> Mixer:
    return override(load_file(find_spec("short_conv")), {"dilation": dilation})


@cache
def runner(mixer: Mixer, rows: int = 64) -> CpuRunner:
    return CpuRunner(mixer, lower, {"block_rows": rows}, flags=("-O1",))


def short_conv(x: Tensor, w: Tensor, dilation: int) -> Tensor:
    """torch's convolution of one channel by itself, in float64."""
    x, w = x.double().transpose(1, 2), w.double()[:, None]
    taps = w.shape[-1]
    made = F.conv1d(x, w, padding=dilation * (taps - 1), dilation=dilation, groups=x.shape[1])
    return F.silu(made[..., : x.shape[-1]]).transpose(1, 2)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("length", [1, 3, 63, 64, 131])
@pytest.mark.parametrize("dilation", [1, 40])
def test_taps_at_every_edge(dtype: torch.dtype, length: int, dilation: int) -> None:
    x, w = torch.randn(2, length, 48).to(dtype), torch.randn(48, 4).to(dtype)
    made = runner(taps_of(dilation), 16)({"x": x, "w": w})["y"]
    assert made.dtype is dtype
    torch.testing.assert_close(
        made.double(), short_conv(x, w, dilation), rtol=TYPES[dtype], atol=TYPES[dtype]
    )


@pytest.mark.parametrize("dtype", TYPES)
def test_strides_of_any_kind(dtype: torch.dtype) -> None:
    whole = torch.full((2, 140, 3, 50), torch.nan).to(dtype)
    w = torch.randn(48, 4).to(dtype)
    x = torch.randn(2, 131, 48).to(dtype)
    whole[:, 4:135, 1, 1:49] = x
    turned = x.transpose(1, 2).contiguous().transpose(1, 2)
    run = runner(taps_of(), 16)
    plain = run({"x": x, "w": w})["y"]
    for other in (whole[:, 4:135, 1, 1:49], turned):
        assert torch.equal(run({"x": other, "w": w})["y"], plain)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_a_map_and_a_sum_over_the_same_tile(dtype: torch.dtype, length: int) -> None:
    x, y = (torch.randn(2, length, 80).to(dtype) for _ in range(2))
    made = runner(load_text(FUNCTIONS, "gated.yaml"))({"x": x, "y": y})
    wide = x.double(), y.double()
    limits = {"rtol": TYPES[dtype], "atol": 10 * TYPES[dtype]}
    torch.testing.assert_close(made["z"].double(), wide[0] * wide[1].sigmoid(), **limits)
    torch.testing.assert_close(made["s"].double(), (wide[0] * wide[1]).sum(-1), **limits)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_result_that_lies_the_other_way_round(dtype: torch.dtype) -> None:
    x = torch.randn(2, 77, 48).to(dtype)
    made = runner(load_text(TURNED, "turned.yaml"))({"x": x})["y"]
    expected = (2 * x.double() - 1).transpose(1, 2)
    torch.testing.assert_close(made.double(), expected, rtol=TYPES[dtype], atol=TYPES[dtype])


def test_whole_tiles_are_not_copied() -> None:
    text = runner(taps_of()).source({"B": 1, "T": 512, "C": 64, "K": 4}, torch.float32)
    body = text[text.index("static void short_conv_y") :]
    assert body.count("mx::load_part") == 4  # at the edges only
    assert all("_apart" in part.rsplit("if (", 1)[-1] for part in body.split("mx::load_part")[:-1])
    assert "mx::store(&y_2_at[" in body.replace("store_narrow", "store")


@pytest.mark.parametrize(("taps", "loops"), [(1, 0), (4, 0), (8, 0), (9, 1)])
def test_few_terms_are_written_out(taps: int, loops: int) -> None:
    mixer = load_text(MANY, "many.yaml")
    sizes = {"B": 1, "T": 64, "C": 32, "K": taps}
    run = CpuRunner(mixer, lower, {"fft_lags": 1 << 30}, flags=("-O1",))
    (kernel,) = run.plan(sizes, torch.float32).kernels
    assert sum(isinstance(op, For) for op in all_ops(kernel.program.body)) == loops
    x, w = torch.randn(1, 64, 32), torch.randn(32, taps)
    shifted = [F.pad(x, (0, 0, k, 0))[:, :64] * w[:, k] for k in range(taps)]
    torch.testing.assert_close(run({"x": x, "w": w})["y"], sum(shifted), rtol=1e-5, atol=1e-5)
