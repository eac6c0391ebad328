"""Attention over fewer keys (linformer) and over fewer key channels (think)."""

from __future__ import annotations

import torch

from .independent import assert_matches, assert_same_gradients, normal, reference, sdpa

B, H, G, T, D, E = 2, 6, 2, 11, 8, 5


def test_linformer_matches_sdpa_over_projected_rows() -> None:
    rows = 4
    inputs = {
        "q": normal(B, H, T, D, grad=True),
        "k": normal(B, G, T, D, grad=True),
        "v": normal(B, G, T, E, grad=True),
        "project_k": normal(G, rows, T, grad=True),
        "project_v": normal(G, rows, T, grad=True),
    }
    ours = reference("linformer", inputs)["o"]
    theirs = sdpa(inputs["q"], inputs["project_k"] @ inputs["k"], inputs["project_v"] @ inputs["v"])
    assert_matches(ours, theirs)
    assert_same_gradients(ours, theirs, inputs)


def test_think_matches_sdpa_with_the_other_channels_at_zero() -> None:
    channels = 3
    q, v = normal(B, H, T, D, grad=True), normal(B, G, T, E, grad=True)
    k = normal(B, G, T, D, grad=True)
    kept = torch.rand(B, G, D).argsort(-1)[..., :channels].int()
    stored = k.gather(3, kept.long()[:, :, None].expand(B, G, T, channels))
    ours = reference("think", {"q": q, "k": stored, "v": v, "kept": kept})["o"]

    alive = torch.zeros(B, G, 1, D, dtype=torch.float64)
    alive.scatter_(3, kept.long()[:, :, None], 1.0)
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    theirs = sdpa(q, k * alive, v, mask=causal, scale=D**-0.5)
    assert_matches(ours, theirs)
    assert_same_gradients(ours, theirs, {"q": q, "k": k, "v": v})
