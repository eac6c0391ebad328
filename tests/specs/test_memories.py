"""Memories beside others and beside attention: MoM, Titans as a gate."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from .independent import assert_agrees, kept_in_float64, normal, positions, sdpa

B, T, H, M, D, E = 2, 19, 2, 4, 5, 6


def test_mom_is_a_gated_delta_rule_on_the_tokens_of_each_memory() -> None:
    naive = pytest.importorskip("fla.ops.gated_delta_rule.naive")
    x = {"q": normal(B, T, H, D, grad=True), "v": normal(B, T, M, H, E, grad=True)}
    x["k"] = functional.normalize(normal(B, T, M, H, D), dim=-1).requires_grad_()
    x["g"] = functional.logsigmoid(normal(B, T, M, H)).requires_grad_()
    x["beta"] = torch.rand(B, T, M, H, dtype=torch.float64, requires_grad=True)
    x["router"] = normal(B, T, M, grad=True)
    p = x["router"].softmax(-1)
    kept = torch.zeros_like(p).scatter(2, p.topk(2).indices, 1.0)
    share = p * kept / (p * kept).sum(-1, keepdim=True)
    rows = []
    for b in range(B):
        o = torch.zeros(T, H, E, dtype=torch.float64)
        for m in range(M):
            own = kept[b, :, m].nonzero()[:, 0]
            given = [x["q"][b, own], *(x[n][b, own, m] for n in ("k", "v", "beta", "g"))]
            if len(own):
                with kept_in_float64():
                    y, _ = naive.naive_recurrent_gated_delta_rule(*(a[None] for a in given))
                o = o.index_add(0, own, share[b, own, m, None, None] * y[0])
        rows.append(o)
    assert_agrees("mom", x, {"o": torch.stack(rows)})


@pytest.mark.parametrize("window", [3, 64])
def test_titans_as_a_gate_is_a_window_times_a_memory(window: int) -> None:
    x = {n: normal(B, T, H, D, grad=True) for n in "qk"} | {"v": normal(B, T, H, E, grad=True)}
    x |= {n: normal(B, T, H, grad=True) for n in ("theta", "alpha", "eta")}
    x |= {"k_first": normal(H, 3, D, grad=True), "v_first": normal(H, 3, E, grad=True)}
    memory = torch.zeros(B, H, D, E, dtype=torch.float64, requires_grad=True)
    surprise, reads = torch.zeros(B, H, D, E, dtype=torch.float64), []
    for t in range(T):
        q, k, v, theta, alpha, eta = (x[n][:, t] for n in ("q", "k", "v", "theta", "alpha", "eta"))
        loss = 0.5 * ((k[:, :, None] @ memory)[:, :, 0] - v).square().sum()
        (slope,) = torch.autograd.grad(loss, memory, create_graph=True)
        theta, alpha, eta = (a.sigmoid()[..., None, None] for a in (theta, alpha, eta))
        surprise = eta * surprise - theta * slope
        memory = (1 - alpha) * memory + surprise
        reads.append((q[:, :, None] @ memory)[:, :, 0])
    i, j = positions(T)
    seen = torch.cat([torch.ones(T, 3).bool(), (j <= i) & (i - j < window)], 1)
    first = [x[n + "_first"].expand(B, -1, -1, -1) for n in "kv"]
    together = [torch.cat([f, x[n].transpose(1, 2)], 2) for f, n in zip(first, "kv", strict=True)]
    y = sdpa(x["q"].transpose(1, 2), *together, seen).transpose(1, 2)
    read = torch.stack(reads, 1)
    o = y * (read * (read.square().mean(-1, keepdim=True)).rsqrt()).sigmoid()
    assert_agrees("titans_mag", x, {"o": o}, {"window": window})
