"""MoBA against a loop over rows, like its authors' naive code: gates, a sort, dense softmax."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .independent import assert_matches, assert_same_gradients, normal, reference, sdpa

B, H, G, T, D, E, BLOCK, KEEP = 2, 4, 2, 29, 6, 5, 4, 3


def chosen(q: Tensor, k: Tensor) -> Tensor:
    """[B, H, T, T]: causal keys of the own block and of the KEEP - 1 best earlier ones."""
    seen = torch.zeros(B, H, T, T, dtype=torch.bool)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                own = t // BLOCK
                keys = k[b, :, h // (H // G)]
                means = [keys[n * BLOCK : (n + 1) * BLOCK].mean(0) for n in range(own)]
                gates = [float(q[b, t, h] @ mean) for mean in means]
                best = sorted(range(own), key=lambda n, gates=gates: -gates[n])[: KEEP - 1]
                for n in (own, *best):
                    seen[b, h, t, n * BLOCK : min(t + 1, (n + 1) * BLOCK)] = True
    return seen


@pytest.mark.parametrize("seed", range(2))
def test_matches_the_naive_loop(seed: int) -> None:
    torch.manual_seed(seed)
    q, k = normal(B, T, H, D, grad=True), normal(B, T, G, D, grad=True)
    v = normal(B, T, G, E, grad=True)
    heads = [x.transpose(1, 2) for x in (q, k, v)]
    expected = sdpa(*heads, chosen(q.detach(), k.detach())).transpose(1, 2)
    given = {"q": q, "k": k, "v": v}
    found = reference("moba", given, {"block": BLOCK, "keep": KEEP})["o"]
    assert_matches(found, expected)
    assert_same_gradients(found, expected, given)
