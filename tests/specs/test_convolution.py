"""Convolutions, pooling and spectra: against transformers, torch's FFT and the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from .independent import assert_agrees, assert_matches, normal, reference

B, T, C = 2, 11, 4


def spectral(kernel: Tensor, u: Tensor, size: int = 2 * T, shift: int = 0) -> Tensor:
    """sum of kernel[l] u[t - l] with time last; the kernel begins at lag ``shift``."""
    padded = torch.zeros(*kernel.shape[:-1], size, dtype=kernel.dtype)
    places = (torch.arange(min(kernel.shape[-1], size)) + shift) % size
    padded = padded.index_copy(-1, places, kernel[..., : len(places)])
    return torch.fft.irfft(torch.fft.rfft(padded) * torch.fft.rfft(u, n=size), n=size)[..., :T]


def taps_of_torch(x: Tensor, w: Tensor, before: int) -> Tensor:
    """torch's depthwise conv1d over [B, T, C], its first tap ``before`` tokens ago."""
    padded = F.pad(x.mT, (before, w.shape[-1] - 1 - before))
    return F.conv1d(padded, w[:, None], groups=len(w)).mT


@pytest.mark.parametrize("taps", [6, T, 17])
def test_long_conv_is_a_product_of_spectra(taps: int) -> None:
    x = {"u": normal(B, T, C, grad=True), "h": normal(C, taps, grad=True)}
    x["skip"] = normal(C, grad=True)
    h = x["h"].sign() * F.relu(x["h"].abs() - 0.1)
    mixed = spectral(h[:, :T], x["u"].mT).mT
    assert_agrees("long_conv", x, {"y": F.gelu(mixed + x["skip"] * x["u"])})


@pytest.mark.parametrize("pieces", [1, 2, 4])
def test_sgconv_stretches_by_torchs_interpolation(pieces: int) -> None:
    x = {"u": normal(B, T, C, grad=True), "w": normal(pieces, C, 2, grad=True)}
    x |= {"size": normal(C).abs() + 1, "skip": normal(C, grad=True)}
    kernel = [
        F.interpolate(piece[None], scale_factor=float(2 ** max(0, s - 1)), mode="linear")[0]
        * 2.0 ** (pieces - 1 - s)
        for s, piece in enumerate(x["w"])
    ]
    whole = torch.cat(kernel, -1) / x["size"][:, None]
    mixed = spectral(whole[:, :T], x["u"].mT).mT
    y = mixed + x["skip"] * x["u"]
    assert_agrees("sgconv", x, {"y": y}, {"pieces": pieces})


def test_hyena_is_its_formula() -> None:
    length, width = 16, 5
    x = {
        "u": normal(B, T, 3 * C, grad=True),
        "taps": normal(3 * C, 3, grad=True),
        "taps_bias": normal(3 * C, grad=True),
        "W1": normal(3, width, grad=True),
        "b1": normal(width, grad=True),
        "W2": normal(width, width, grad=True),
        "b2": normal(width, grad=True),
        "W3": normal(width, C, grad=True),
        "freq": normal(width, grad=True),
        "freq2": normal(width, grad=True),
        "delta": torch.linspace(math.log(0.01) / 1.5, math.log(0.01) / 0.3, C).double(),
        "skip": normal(C, grad=True),
    }
    lag = torch.arange(length, dtype=torch.float64)[:, None]
    turn = torch.exp(-2j * math.pi * lag / length * 1e-4)
    z = torch.cat([lag / (length - 1), turn.real, turn.imag], -1)
    z = torch.sin(x["freq"] * F.linear(z, x["W1"].T, x["b1"]))
    z = torch.sin(x["freq2"] * F.linear(z, x["W2"].T, x["b2"])) @ x["W3"]
    h = z * torch.exp(-lag / (length - 1) * x["delta"].abs())
    short = taps_of_torch(x["u"], x["taps"], 2) + x["taps_bias"]
    x0, x1, v = short.split(C, -1)
    v = v * x1
    v = spectral(h.T, v.mT, size=T + length).mT + x["skip"] * v
    assert_agrees("hyena", x, {"y": x0 * v}, {"length": length})


@pytest.mark.parametrize("taps", [5, T])
def test_m2_counts_no_lag_twice(taps: int) -> None:
    tables = ("before", "after", "before_2", "after_2")
    x = {"x": normal(B, T, C, grad=True), "p": normal(B, T, 3, C, grad=True)}
    x |= {"taps": normal(3, C, 3, grad=True)} | {n: normal(C, taps, grad=True) for n in tables}
    x |= {"skip": normal(C, grad=True), "skip_2": normal(C, grad=True)}

    def both(before: Tensor, after: Tensor, u: Tensor) -> Tensor:
        size = 2 * (T + taps)
        back = spectral(after.flip(-1), u.mT, size, -taps)
        return (spectral(before, u.mT, size) + back).mT

    x1, x2, v = (taps_of_torch(x["p"][:, :, n], x["taps"][n], 2) for n in range(3))
    u = x1 * v
    y = (both(x["before"], x["after"], u) + x["skip"] * u) * x2
    y = y + both(x["before_2"], x["after_2"], x["x"]) + x["skip_2"] * x["x"]
    assert_agrees("m2", x, {"y": y})


def test_fnet_matches_transformers() -> None:
    fnet = pytest.importorskip("transformers.models.fnet.modeling_fnet")
    config = fnet.FNetConfig(hidden_size=C)
    x = {"x": normal(B, T, C, grad=True)}
    assert_agrees("fnet", x, {"y": fnet.FNetBasicFourierTransform(config)(x["x"])[0]})


def test_ponet_pools_the_whole_the_segments_and_the_neighbours() -> None:
    x = {name: normal(B, T, 2, C, grad=True) for name in "qkosl"}
    g = x["q"].mean(1, keepdim=True)
    p = ((g * x["k"]).sum(-1) / C**0.5).softmax(1)
    top = torch.einsum("bth,bthd->bhd", p, x["k"])[:, None]
    parts = x["s"].split(T // 3 + 1, 1)
    segment = torch.cat([s.amax(1, keepdim=True).expand_as(s) for s in parts], 1)
    around = F.pad(x["l"], (0, 0, 0, 0, 1, 1), value=-torch.inf)
    near = around.unfold(1, 3, 1).amax(-1)
    assert_agrees("ponet", x, {"y": (top + segment) * x["o"] + near}, {"segments": 3})


def test_s4d_by_its_kernel_has_the_answers_of_its_recurrence() -> None:
    x = {"x": normal(B, C, T), "log_dt": normal(C), "log_A_real": normal(C, 3)}
    x |= {"A_imag": normal(C, 3), "C_real": normal(C, 3), "C_imag": normal(C, 3), "skip": normal(C)}
    assert_matches(reference("s4d_conv", x)["o"], reference("s4d", x)["o"])


@pytest.mark.parametrize("dilation", [1, 3, T])
def test_dilated_conv_is_torchs(dilation: int) -> None:
    x = {"x": normal(B, T, C, grad=True), "w": normal(C, 3, grad=True), "b": normal(C, grad=True)}
    padded = F.pad(x["x"].mT, (2 * dilation, 0))
    y = F.conv1d(padded, x["w"][:, None], x["b"], groups=C, dilation=dilation).mT
    assert_agrees("dilated_conv", x, {"y": y}, {"dilation": dilation})


@pytest.mark.parametrize("by_lag", [False, True])
def test_extractor_sums_what_each_place_makes_of_a_token(by_lag: bool) -> None:
    x = {"x": normal(B, T, C, grad=True), "W": normal(T, C, 5, grad=True)}
    x |= {"A": normal(C, 5, grad=True)}
    rows = []
    for t in range(T):
        places = t - torch.arange(t + 1) if by_lag else torch.arange(t + 1)
        summed = torch.einsum("bud,ude->be", x["x"][:, : t + 1], x["W"][places])
        rows.append((t + 1) ** -0.5 * summed * (x["x"][:, t] @ x["A"]))
    assert_agrees("extractor", x, {"y": torch.stack(rows, 1)}, {"by_lag": by_lag})


@pytest.mark.parametrize("length", [1, 2, 13])
def test_orchid_makes_its_kernel_of_the_spectrum(length: int) -> None:
    channels, taps = 3, 3
    x = {n: normal(2, length, channels, grad=True) for n in ("s1", "s2", "v")}
    x |= {n: normal(channels, taps, grad=True) for n in ("taps", "taps_v")}
    x |= {"taps_f": normal(channels, 2, taps, grad=True), "h0": normal(length, channels, grad=True)}
    x["skip"] = normal(channels, grad=True)

    def short(z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        w = weight.reshape(-1, 1, taps)
        return F.conv1d(z.mT, w, padding=1, groups=channels).mT

    c = F.layer_norm(short(x["v"], x["taps"]), (channels,))
    power = torch.fft.fft(c, dim=1).abs().square()
    told = short(power, x["taps_f"]).unflatten(-1, (channels, 2))
    told = F.layer_norm(told, (channels, 2))
    own = torch.fft.ifft(torch.complex(told[..., 0], told[..., 1]), dim=1).real
    u = x["s1"] * short(x["v"], x["taps_v"])
    y = torch.fft.ifft(torch.fft.fft(own + x["h0"], dim=1) * torch.fft.fft(u, dim=1), dim=1).real
    assert_agrees("orchid", x, {"o": x["s2"] * (y + x["skip"] * u)})
