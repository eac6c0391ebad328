"""Keys that are kept because an earlier row, a cluster or an estimate said so."""

from __future__ import annotations

import math

import pytest
import torch

from .independent import assert_agrees, normal, positions, sdpa

B, H, G, T, D, E = 2, 4, 2, 23, 6, 5


def heads(length: int = T) -> dict[str, torch.Tensor]:
    return {
        "q": normal(B, H, T, D, grad=True),
        "k": normal(B, G, length, D, grad=True),
        "v": normal(B, G, length, E, grad=True),
    }


def test_squeezed_reads_the_clusters_that_its_queries_share() -> None:
    prefix, clusters, threshold = 17, 5, 0.056
    x = heads() | {"k_prefix": normal(B, G, prefix, D, grad=True)}
    x["v_prefix"] = normal(B, G, prefix, E, grad=True)
    label = torch.randint(clusters - 1, (B, G, prefix))  # the last cluster is empty
    ones = torch.nn.functional.one_hot(label, clusters).double()
    members = ones.sum(2)
    centroid = ones.mT @ x["k_prefix"].detach() / members.clamp(min=1)[..., None]
    x |= {"centroid": centroid, "members": members.int(), "label": label.int()}
    each = (x["q"] @ centroid.repeat_interleave(H // G, 1).mT / math.sqrt(D)).exp()
    total = (each * members.repeat_interleave(H // G, 1)[:, :, None]).sum(-1, keepdim=True)
    kept = (each / total).mean(2) > threshold
    seen = kept.gather(2, label.repeat_interleave(H // G, 1))[:, :, None].expand(-1, -1, T, -1)
    assert 0 < seen.double().mean() < 1
    causal = torch.ones(T, T).tril().bool().expand(B, H, T, T)
    keys, values = (torch.cat([x[n + "_prefix"], x[n]], 2) for n in "kv")
    o = sdpa(x["q"], keys, values, torch.cat([seen, causal], -1))
    assert_agrees("squeezed", x, {"o": o}, {"threshold": threshold})


@pytest.mark.parametrize("drop", [0.0, 0.4, 1.0])
def test_lazy_leaves_out_what_the_layer_before_looked_at_least(drop: float) -> None:
    x = heads() | {"q_last": normal(B, H, D), "k_before": normal(B, G, T, D)}
    before = x["k_before"].repeat_interleave(H // G, 1)
    weight = ((before @ x["q_last"][..., None])[..., 0] / math.sqrt(D)).softmax(-1).mean(1)
    weight[:, -1] = math.inf
    dropped = weight.argsort(-1)[:, : math.floor(drop * T)]
    seen = torch.ones(B, T, dtype=torch.bool).scatter(1, dropped, False)
    seen = seen[:, None, None] & torch.ones(T, T).tril().bool()
    o = torch.where(seen.any(-1, keepdim=True), sdpa(x["q"], x["k"], x["v"], seen), 0.0)
    assert_agrees("lazy", x, {"o": o}, {"drop": drop})


@pytest.mark.parametrize(("stride", "keep"), [(1, 4), (5, 7), (8, 3)])
def test_recycled_attends_to_what_the_last_full_row_liked(stride: int, keep: int) -> None:
    x = heads()
    q, k = (x[n].detach() for n in "qk")
    s = q @ k.repeat_interleave(H // G, 1).mT / math.sqrt(D)
    seen = torch.zeros(B, G, T, T, dtype=torch.bool)
    for t in range(T):
        full = t // stride * stride
        weight = s[:, :, full, : full + 1].softmax(-1).reshape(B, G, H // G, full + 1).amax(2)
        left = max(min(keep - t % stride, full + 1), 0)
        places = weight.argsort(-1, descending=True)[..., :left]
        seen[:, :, t].scatter_(2, places, True)
        seen[:, :, t, full + 1 : t + 1] = True
        if t == full:
            seen[:, :, t, : t + 1] = True
    rows = {n: a.transpose(1, 2).detach().requires_grad_() for n, a in x.items()}
    o = sdpa(*(rows[n].transpose(1, 2) for n in "qkv"), seen.repeat_interleave(H // G, 1))
    params = {"stride": stride, "keep": keep}
    assert_agrees("recycled", rows, {"o": o.transpose(1, 2)}, params)


def test_sea_looks_into_the_best_cells_of_all_heads() -> None:
    cells, keep = 6, 3
    x = {n: normal(B, H, T, size, grad=True) for n, size in zip("qkv", (D, D, E), strict=True)}
    x |= {n: normal(B, H, T, grad=True) for n in ("gain", "mix")}
    x["estimate"] = torch.rand(B, T, H * cells, dtype=torch.float64)
    seen = torch.zeros(B, H, T, T, dtype=torch.bool)
    for t in range(T):
        best = max(round(H * keep * cells / (t + 1)), 1)
        row = x["estimate"][:, t]
        places = row.argsort(-1, descending=True)[:, :best]
        kept = torch.zeros_like(row, dtype=torch.bool).scatter(1, places, True)
        cell = ((torch.arange(t + 1) + 0.5) / (t + 1) * cells - 1e-4).floor().long()
        seen[:, :, t, : t + 1] = kept.view(B, H, cells)[:, :, cell.clamp(0, cells - 1)]
    y = sdpa(x["q"], x["k"], x["v"], seen | ~seen.any(-1, keepdim=True))
    y = torch.where(seen.any(-1, keepdim=True), y, 0.0) * x["gain"].sigmoid()[..., None]
    share = x["mix"].sigmoid()[..., None]
    mean = x["v"].cumsum(2) / (positions(T)[0] + 1)
    assert_agrees("sea", x, {"o": share * y + (1 - share) * mean}, {"cells": cells, "keep": keep})
