"""Convolutions by torch.fft and conv1d, as peers."""

from __future__ import annotations

import pytest
import torch

from mixc.autotune.bench.convolution_peers import Taps, by_conv1d, by_fft, convolution
from mixc.autotune.bench.peers import Setting
from mixc.autotune.checking.sampling import default_sizes, sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.ir.errors import UnsupportedError
from mixc.ir.mixer import Mixer

TWO_SIDED = """
mixer: two_sided
inputs: {x: [B, T, C], w: [C, K], skip: [C]}
map: {y: "skip * sum(w * x[T=t + k - K // 2], K) - 2 * sum(x[T=t - k] * w, K)"}
outputs: {y: [B, C, T]}
"""
ALL_CHANNELS = """
mixer: all_channels
inputs: {x: [B, T, C], w: [F, C, K]}
map: {y: "sum(w * x[T=t - k], K, C)"}
outputs: {y: [B, T, F]}
"""


def setting(mixer: Mixer) -> Setting:
    sizes = default_sizes(mixer, "one head per group")
    inputs = sample_inputs(mixer, sizes, torch.float32, seed=2)
    return Setting(mixer, sizes, inputs, torch.float32, {})


def library(name: str) -> Mixer:
    return load_file(find_spec(name))


@pytest.mark.parametrize("convolve", [by_fft, by_conv1d])
@pytest.mark.parametrize(
    "mixer", [library("long_conv"), library("short_conv"), library("m2"), load_text(TWO_SIDED)]
)
def test_the_results_are_the_specs(convolve, mixer: Mixer) -> None:  # type: ignore[no-untyped-def]
    given = setting(mixer)
    call = convolution("torch", convolve)(given)
    assert call.what in ("torch", "torch, compiled")
    found = call.results(call.run())
    for name, wanted in run(mixer, given.tensors).items():
        largest = float(wanted.abs().max())  # what a transform rounds is in proportion to all rows
        torch.testing.assert_close(found[name].double(), wanted, rtol=1e-4, atol=1e-6 * largest)


def test_sums_over_channels_go_by_the_transform_alone() -> None:
    given = setting(load_text(ALL_CHANNELS))
    call = convolution("torch.fft", by_fft)(given)
    wanted = run(given.mixer, given.tensors)["y"]
    found = call.results(call.run())["y"]
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(UnsupportedError, match="not for each channel"):
        convolution("conv1d", by_conv1d)(given)


@pytest.mark.parametrize("convolve", [by_fft, by_conv1d])
@pytest.mark.parametrize("ahead", [-3, 0, 2, 9])
def test_rows_before_and_after_the_signal(convolve, ahead: int) -> None:  # type: ignore[no-untyped-def]
    kernel, signal = torch.randn(3, 4), torch.randn(3, 7)
    found = convolve(Taps(kernel, signal, ahead, 8, ()))
    wanted = torch.zeros(3, 8)
    for t in range(8):
        for lag in range(4):
            if 0 <= t + ahead - lag < 7:
                wanted[:, t] += kernel[:, lag] * signal[:, t + ahead - lag]
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("name", "why"), [("causal", "other forms than maps"), ("rope_shift", "no sum over lags")]
)
def test_what_is_no_convolution_is_said_so(name: str, why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        convolution("torch.fft", by_fft)(setting(library(name)))
