"""Rows that are dropped, merged or picked: Informer, SeqBoat, integrate and fire."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

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


def packed_attention(x: dict[str, Tensor], window: int, causal: bool) -> Tensor:
    """SeqBoat's attention of one sequence and head: gather, window, scatter."""
    p = x["router"].softmax(-1)[:, 1]
    active = (x["router"][:, 1] > x["router"][:, 0]).nonzero()[:, 0]
    q, k, v = (x[name][active] for name in "qkv")
    distance = active[None, :] - active[:, None]
    slot = torch.arange(len(active))
    apart = slot[:, None] - slot[None, :]
    seen = (apart >= (0 if causal else -window)) & (apart <= window)
    s = q @ k.mT / (window if causal else 2 * window)
    s = s + x["bias"][distance + len(x["bias"]) // 2]
    y = (torch.where(seen, s.relu().square(), 0.0) @ v) * p[active, None]
    return torch.zeros(T, E, dtype=torch.float64).index_copy(0, active, y)


@pytest.mark.parametrize("window", [1, 4, T])
@pytest.mark.parametrize("causal", [False, True])
def test_seqboat_counts_its_window_among_the_chosen(window: int, causal: bool) -> None:
    x = {"q": normal(B, T, H, D, grad=True), "k": normal(B, T, H, D, grad=True)}
    x |= {"v": normal(B, T, H, E, grad=True), "router": normal(B, T, 2, grad=True)}
    x["router"].data[1] = torch.tensor([1.0, 0.0])  # a sequence in which nothing goes
    x["bias"] = normal(2 * T + 1, grad=True)
    shared = ("router", "bias")
    o = torch.stack(
        [
            torch.stack(
                [
                    packed_attention(
                        {
                            n: a if n == "bias" else a[b] if n in shared else a[b, :, h]
                            for n, a in x.items()
                        },
                        window,
                        causal,
                    )
                    for h in range(H)
                ],
                1,
            )
            for b in range(B)
        ]
    )
    assert_agrees("seqboat", x, {"o": o}, {"window": window, "causal": causal})


def fired(x: Tensor, alpha: Tensor, beta: float, slots: int) -> tuple[Tensor, Tensor]:
    """Integrate and fire as its paper tells it, token by token: [slots, C] and masses."""
    out = [torch.zeros(x.shape[-1], dtype=torch.float64) for _ in range(slots + 1)]
    mass = [torch.zeros((), dtype=torch.float64) for _ in range(slots + 1)]
    slot = 0
    for token, amount in zip(x, alpha, strict=True):
        left = amount
        while mass[slot] + left >= beta and slot < slots:
            part = beta - mass[slot]
            out[slot], mass[slot] = out[slot] + part * token, mass[slot] + part
            left, slot = left - part, slot + 1
        out[slot], mass[slot] = out[slot] + left * token, mass[slot] + left
    return torch.stack(out[:slots]), torch.stack(mass[:slots])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_cif_fires_when_enough_has_come_together(beta: float, training: bool) -> None:
    x = {"x": normal(B, T, E, grad=True), "alpha": torch.rand(B, T, dtype=torch.float64)}
    x["alpha"].requires_grad_()
    slots = T + 3 if beta < 1 else 9
    made = [fired(x["x"][b], x["alpha"][b], beta, slots) for b in range(B)]
    o, mass = (torch.stack(parts) for parts in zip(*made, strict=True))
    if not training:
        whole = mass[..., None].clamp(min=1e-9)
        o = torch.where(whole >= beta / 2, o * beta / whole, 0.0)
    params = {"beta": beta, "slots": slots, "training": training}
    assert_agrees("cif", x, {"o": o, "mass": mass}, params)
