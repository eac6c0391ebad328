"""Forgetting attention against flash-linear-attention's naive function."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid

from .independent import (
    assert_matches,
    assert_same_gradients,
    kept_in_float64,
    normal,
    reference,
    sdpa,
)

B, T, H, D = 2, 19, 6, 5


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_matches_fla(groups: int) -> None:
    naive = pytest.importorskip("fla.ops.forgetting_attn.naive").naive_forgetting_attn
    inputs = {
        "q": normal(B, T, H, D, grad=True),
        "k": normal(B, T, groups, D, grad=True),
        "v": normal(B, T, groups, 7, grad=True),
        "g": logsigmoid(3 * normal(B, T, H)).requires_grad_(),
    }
    ours = reference("fox", inputs)["o"]
    with kept_in_float64():
        theirs = naive(**inputs)
    assert theirs.dtype == torch.float64
    assert_matches(ours, theirs)
    assert_same_gradients(ours, theirs, inputs)


def test_open_gates_are_causal_attention() -> None:
    q, k, v = normal(B, T, H, D), normal(B, T, 2, D), normal(B, T, 2, D)
    o = reference("fox", {"q": q, "k": k, "v": v, "g": torch.zeros(B, T, H).double()})["o"]
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    expected = sdpa(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask=causal)
    assert_matches(o, expected.transpose(1, 2))
