"""Mixers over pictures: coverage attention, LightNet over two axes, tokens to token."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from .independent import assert_agrees, normal

B, H, D, E = 2, 3, 4, 5


def test_coverage_is_taken_off_the_scores_by_convolutions() -> None:
    rows, height, width, inner, taps = 5, 4, 6, 7, 5
    x = {
        "q": normal(B, H, rows, D, grad=True),
        "k": normal(B, H, height, width, D, grad=True),
        "v": normal(B, H, height, width, E, grad=True),
        "counted": torch.rand(B, rows).round().double(),
        "taps": normal(inner, H, taps, taps, grad=True),
        "bias": normal(inner, grad=True),
        "mix": normal(H, inner, grad=True),
    }
    s = x["q"] @ x["k"].flatten(2, 3).mT / math.sqrt(D)
    p = s.softmax(-1) * x["counted"][:, None, :, None]
    past = (p.cumsum(2) - p).transpose(1, 2).reshape(B * rows, H, height, width)
    seen = functional.conv2d(past, x["taps"], x["bias"], padding=taps // 2).relu()
    less = functional.conv2d(seen, x["mix"][:, :, None, None])
    s = s - less.view(B, rows, H, height * width).transpose(1, 2)
    o = s.softmax(-1) @ x["v"].flatten(2, 3)
    assert_agrees("coverage", x, {"o": o})


def test_lightnet_over_a_picture() -> None:
    height, width, channels = 5, 3, 8
    x = {n: normal(B, H, height, width, channels, grad=True) for n in "qk"}
    x["v"] = normal(B, H, height, width, E, grad=True)
    pairs, part = channels // 2, channels // 4
    place = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    theta = 10000.0 ** (
        -2 * (torch.arange(H)[:, None] * pairs + torch.arange(part)).double() / (H * channels)
    )
    angle = (place[..., None, None] * theta).movedim(0, -2).flatten(-2)  # rows' pairs, columns'
    angle = angle.movedim(2, 0)

    def turned(z: torch.Tensor) -> torch.Tensor:
        pair = torch.complex(z[..., :pairs], z[..., pairs:]) * torch.polar(
            torch.ones((), dtype=torch.float64), angle
        )
        return torch.cat([pair.real, pair.imag], -1)

    q, k, v = (x[n] for n in "qkv")
    share = k.flatten(2, 3).softmax(2).view_as(k)
    state = torch.einsum("bhyxd,bhyxe->bhde", turned(share), v)
    o = torch.einsum("bhyxd,bhde->bhyxe", turned(functional.silu(q)), state)
    assert_agrees("lightnet_2d", x, {"o": o})


@pytest.mark.parametrize(("taps", "stride", "pad"), [(3, 2, 1), (7, 4, 2)])
def test_tokens_to_token(taps: int, stride: int, pad: int) -> None:
    height, width, channels, features = 9, 11, 3, 6
    x = {"x": normal(B, height, width, channels, grad=True)}
    x |= {f"W_{n}": normal(channels, taps, taps, E, grad=True) / 9 for n in "qkv"}
    x["omega"] = normal(features, E)
    cut = functional.unfold(x["x"].movedim(-1, 1), taps, padding=pad, stride=stride).mT
    cut = functional.layer_norm(cut, cut.shape[-1:])  # channel, row, column: as unfold orders them
    q, k, v = (cut @ x[f"W_{n}"].flatten(0, 2) for n in "qkv")

    def features_of(z: torch.Tensor) -> torch.Tensor:
        told = torch.einsum("bte,me->btm", z, x["omega"])
        return (told - z.square().sum(-1, keepdim=True) / 2).exp() / math.sqrt(features)

    q_m, k_m = features_of(q), features_of(k)
    total = torch.einsum("btm,bm->bt", q_m, k_m.sum(1)) + 1e-8
    read = torch.einsum("bte,btm->bem", v, k_m)
    o = v + torch.einsum("btm,bem->bte", q_m, read) / total[..., None]
    rows = (height + 2 * pad - taps) // stride + 1
    params = {"width": taps, "stride": stride, "pad": pad}
    assert_agrees("t2t", x, {"o": o.view(B, rows, -1, E)}, params)
