"""DeltaFormer against flash-linear-attention's naive function."""

from __future__ import annotations

import pytest
import torch

from .independent import (
    assert_matches,
    assert_same_gradients,
    kept_in_float64,
    normal,
    reference,
)

B, T, H, D = 2, 19, 3, 5


@pytest.mark.parametrize("corrected", [True, False])
def test_matches_fla(corrected: bool) -> None:
    naive = pytest.importorskip("fla.ops.deltaformer.naive").naive_deltaformer_attn
    given = {name: normal(B, T, H, D, grad=True) for name in "qkv"}
    if corrected:
        given["beta"] = torch.rand(B, T, H, dtype=torch.float64).requires_grad_()
    found = reference("deltaformer", given)["o"]
    with kept_in_float64():
        expected = naive(**given)
    assert_matches(found, expected)
    assert_same_gradients(found, expected, given)
