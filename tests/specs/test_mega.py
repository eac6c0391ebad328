"""MEGA: attention to a moving average, between gates, by its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from .independent import assert_agrees, normal

B, T = 2, 9


def moved_average(x: Tensor, ema: Tensor, omega: Tensor) -> Tensor:
    """MEGA's damped average as its code has it, a convolution by a kernel of the whole length."""
    delta, alpha, beta, gamma = ema
    p = delta.sigmoid()
    steps = torch.arange(x.shape[1])[:, None, None]
    kernel = (p * beta * gamma * (1 - p * alpha.sigmoid()) ** steps).sum(-1) / ema.shape[-1] ** 0.5
    size = 2 * x.shape[1]
    spectrum = torch.fft.rfft(x, size, dim=1) * torch.fft.rfft(kernel, size, dim=0)
    return functional.silu(torch.fft.irfft(spectrum, size, dim=1)[:, : x.shape[1]] + omega * x)


@pytest.mark.parametrize(("chunk", "causal"), [(T, True), (4, True), (T, False)])
def test_mega_is_its_formula(chunk: int, causal: bool) -> None:
    channels, z, values = 6, 4, 5
    sizes = {"W_v": values, "W_z": z, "W_r": values, "W_u": channels, "W_h": channels}
    x = {n: normal(channels, size, grad=True) for n, size in sizes.items()}
    x |= {"x": normal(B, T, channels, grad=True), "ema": normal(4, channels, 3, grad=True)}
    x |= {"omega": normal(channels, grad=True), "W_o": normal(values, channels, grad=True)}
    x |= {"turn": normal(2, z, grad=True), "move": normal(2, z, grad=True)}
    x["bias"] = normal(2 * T + 1, grad=True)
    m = moved_average(x["x"], x["ema"], x["omega"])
    shared = functional.silu(m @ x["W_z"])
    q, k = (shared * turn + move for turn, move in zip(x["turn"], x["move"], strict=True))
    v = functional.silu(x["x"] @ x["W_v"])
    i, j = torch.arange(T)[:, None], torch.arange(T)[None]
    seen = (i // chunk == j // chunk) & ((j <= i) | (not causal))
    s = q @ k.mT / math.sqrt(z) + x["bias"][j - i + T]
    a = s.masked_fill(~seen, -math.inf).softmax(-1) @ v
    made = functional.silu(m @ x["W_h"] + (functional.silu(m @ x["W_r"]) * a) @ x["W_o"])
    y = x["x"] + torch.sigmoid(m @ x["W_u"]) * (made - x["x"])
    assert_agrees("mega", x, {"y": y}, {"chunk": chunk, "causal": causal})
