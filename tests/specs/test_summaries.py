"""Segments and keys by what stands for them: Combiner's summaries, LongVQ's codewords."""

from __future__ import annotations

import math

import pytest
import torch

from .independent import assert_agrees, normal, positions, sdpa

B, H, T, D, E = 2, 3, 22, 6, 5


def heads() -> dict[str, torch.Tensor]:
    return {n: normal(B, H, T, size, grad=True) for n, size in zip("qkv", (D, D, E), strict=True)}


@pytest.mark.parametrize("segment", [1, 4, 32])
def test_combiner_sees_segments_by_their_summaries(segment: int) -> None:
    x = heads()
    rows = [slice(at, at + segment) for at in range(0, T, segment)]
    keys = torch.stack([x["k"][:, :, r].amax(2) for r in rows], 2)
    asks = [x["q"][:, :, r].amax(2, keepdim=True) for r in rows]
    sums = [sdpa(a, x["k"][:, :, r], x["v"][:, :, r]) for a, r in zip(asks, rows, strict=True)]
    i, j = positions(T)
    own = (j <= i) & (j // segment == i // segment)
    earlier = torch.arange(len(rows))[None] < i // segment
    together = [torch.cat(p, 2) for p in ((x["k"], keys), (x["v"], torch.cat(sums, 2)))]
    o = sdpa(x["q"], *together, torch.cat([own, earlier], 1))
    assert_agrees("combiner", x, {"o": o}, {"segment": segment})


@pytest.mark.parametrize("block", [4, 64])
def test_longvq_scores_the_nearest_codeword_and_learns_straight_through(block: int) -> None:
    x = heads() | {"codes": normal(H, 7, D), "bias": normal(H, 9, grad=True)}
    nearest = torch.cdist(x["k"].detach(), x["codes"]).argmin(-1)
    code = torch.stack([x["codes"][h][nearest[:, h]] for h in range(H)], 1)
    quantised = x["k"] + (code - x["k"]).detach()
    i, j = positions(T)
    near = j // block >= i // block - 1
    bias = torch.where(near, x["bias"][:, (i - j).clamp(0, 8)], 0.0)
    bias = bias.masked_fill(j > i, -math.inf)
    o = sdpa(x["q"], quantised, x["v"], bias)
    assert_agrees("longvq", x, {"o": o}, {"block": block})
