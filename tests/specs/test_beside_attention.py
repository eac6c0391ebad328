"""Convolutions, prefixes, n-grams and other things that stand beside attention or in its place."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from .independent import assert_agrees, normal, positions, sdpa

B, H, T, D, E = 2, 3, 12, 5, 7


def causal(length: int = T) -> Tensor:
    i, j = positions(length)
    return j <= i


def attended(**more: Tensor) -> dict[str, Tensor]:
    """q, k, v with gradients, and ``more``."""
    x = {
        name: normal(B, H, T, size, grad=True) for name, size in zip("qkv", (D, D, E), strict=True)
    }
    return x | more


@pytest.mark.parametrize(("taps", "dilation"), [(4, 1), (3, 5), (T + 3, 1)])
def test_short_conv_is_a_padded_conv1d(taps: int, dilation: int) -> None:
    """Also where the taps reach before the sequence all along."""
    x = {"x": normal(B, T, E, grad=True), "w": normal(E, taps, grad=True)}
    x["b"] = normal(E, grad=True)
    padded = functional.pad(x["x"].mT, ((taps - 1) * dilation, 0))
    made = functional.conv1d(padded, x["w"][:, None], x["b"], dilation=dilation, groups=E)
    assert_agrees("short_conv", x, {"y": functional.silu(made).mT}, {"dilation": dilation})


@pytest.mark.parametrize("taps", [1, 11, 2 * T + 3])
def test_fsmn_is_attention_and_a_depthwise_convolution(taps: int) -> None:
    x = attended(w=normal(H, E, taps, grad=True))
    rows = x["v"].mT.reshape(B, H * E, T)
    memory = functional.conv1d(
        rows, x["w"].reshape(H * E, 1, taps), padding=taps // 2, groups=H * E
    )
    memory = memory.reshape(B, H, E, T).mT
    assert_agrees("fsmn", x, {"o": sdpa(x["q"], x["k"], x["v"]) + x["v"] + memory})


@pytest.mark.parametrize("n", [1, 2, 3, T + 2])
def test_ngram_head_is_a_loop_over_earlier_occurrences(n: int) -> None:
    """An n-gram lies inside the sequence as a whole; longer ones than it give 0."""
    ids = torch.randint(0, 3, (B, T), dtype=torch.int32)
    x = {"v": normal(B, T, E, grad=True), "ids": ids}
    weights = torch.zeros(B, T, T, dtype=torch.float64)
    for b in range(B):
        words = ids[b].tolist()
        for i in range(n - 1, T):
            here = words[i - n + 1 : i + 1]
            found = [j for j in range(n, i) if words[j - n : j] == here]
            for j in found:
                weights[b, i, j] = 1 / len(found)
    assert_agrees("ngram_head", x, {"o": weights @ x["v"]}, {"n": n})


@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_ntk_prefix_adds_to_both_sums(factor: float) -> None:
    x = attended(Z=normal(H, D, E, grad=True), z=normal(H, D, grad=True))
    x["q"] = (factor * x["q"].detach()).requires_grad_()
    weights = (x["q"] @ x["k"].mT / math.sqrt(D)).exp() * causal()
    feature = functional.elu(x["q"] / D**0.25) + 1
    above = weights @ x["v"] + feature @ x["Z"]
    below = weights.sum(-1, keepdim=True) + feature @ x["z"].abs()[:, :, None]
    assert_agrees("ntk_prefix", x, {"o": above / below})
