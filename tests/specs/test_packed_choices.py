"""Rows that are dropped, merged or picked: Informer."""

from __future__ import annotations

import math

import pytest
import torch

from .independent import assert_agrees, normal, sdpa

B, H, T, D, E = 2, 3, 23, 6, 5


@pytest.mark.parametrize("factor", [1, 5])
@pytest.mark.parametrize("causal", [False, True])
def test_informer_attends_with_the_queries_that_stand_out(factor: int, causal: bool) -> None:
    x = {"q": normal(B, H, T, D, grad=True), "k": normal(B, H, T, D, grad=True)}
    x |= {"v": normal(B, H, T, E, grad=True)}
    drawn = factor * math.ceil(math.log(T))
    x["sample"] = torch.randint(T, (T, drawn), dtype=torch.int32)
    scores = (x["q"][:, :, :, None] * x["k"][:, :, x["sample"].long()]).sum(-1)
    measure = scores.amax(-1) - scores.sum(-1) / T
    chosen = measure.topk(min(drawn, T), -1).indices
    active = torch.zeros(B, H, T, dtype=torch.bool).scatter(-1, chosen, True)[..., None]
    seen = torch.ones(T, T, dtype=torch.bool)
    attended = sdpa(x["q"], x["k"], x["v"], seen.tril() if causal else seen)
    lazy = x["v"].cumsum(2) if causal else x["v"].mean(2, keepdim=True).expand_as(x["v"])
    o = torch.where(active, attended, lazy)
    assert_agrees("informer", x, {"o": o}, {"factor": factor, "causal": causal})
