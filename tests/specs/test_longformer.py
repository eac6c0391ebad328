"""Longformer against transformers, and its dilation (which transformers lacks) against SDPA."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .independent import (
    assert_matches,
    assert_same_gradients,
    kept_in_float64,
    normal,
    positions,
    reference,
    sdpa,
)

B, H, T, D, WINDOW = 2, 3, 32, 4, 8


def by_heads(projected: Tensor) -> Tensor:
    return projected.unflatten(-1, (H, D)).transpose(1, 2)


@pytest.fixture
def theirs() -> torch.nn.Module:
    longformer = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    config = longformer.LongformerConfig(
        hidden_size=H * D,
        num_attention_heads=H,
        num_hidden_layers=1,
        attention_window=[WINDOW],
        attention_probs_dropout_prob=0.0,
    )
    return longformer.LongformerSelfAttention(config, layer_id=0).double().eval()


def run_theirs(layer: torch.nn.Module, x: Tensor, is_global: Tensor, kept: Tensor) -> Tensor:
    marks = torch.where(kept, torch.where(is_global, 10000.0, 0.0), -10000.0).double()
    with kept_in_float64():
        (o,) = layer(
            x,
            attention_mask=marks,
            is_index_masked=~kept,
            is_index_global_attn=is_global,
            is_global_attn=bool(is_global.any()),
        )[:1]
    return by_heads(o)


def project(layer: torch.nn.Module, x: Tensor) -> dict[str, Tensor]:
    names = {"q": "query", "k": "key", "v": "value"}
    local = {name: by_heads(getattr(layer, long)(x)) for name, long in names.items()}
    whole = {
        f"{name}_global": by_heads(getattr(layer, f"{long}_global")(x))
        for name, long in names.items()
    }
    return local | whole


@pytest.mark.parametrize("globals_", [[], [0], [0, 7, 20]], ids=["none", "cls", "three"])
def test_matches_transformers(theirs: torch.nn.Module, globals_: list[int]) -> None:
    x = normal(B, T, H * D, grad=True)
    is_global = torch.zeros(B, T, dtype=torch.bool)
    is_global[:, globals_] = True
    is_global[1, globals_[1:]] = False  # the rows of the batch differ
    kept = torch.arange(T) < torch.tensor([[T], [T - 9]])
    expected = run_theirs(theirs, x, is_global, kept)
    tensors = {**project(theirs, x), "is_global": is_global, "kept": kept}
    o = reference("longformer", tensors, {"window": WINDOW})["o"]
    assert_matches(o, expected)
    assert (o[1, :, T - 9 :] == 0).all()
    assert_same_gradients(o, expected, {"x": x})


def test_dilated_heads_and_grouped_heads_match_sdpa() -> None:
    heads, groups, length = 6, 3, 19
    i, j = positions(length)
    near = [
        torch.isin(j - i, torch.arange(-2, 3) * step) for step in (1, 2, 3, 1, 1, 4)
    ]  # two keys to each side, `step` apart
    is_global = torch.zeros(1, length, dtype=torch.bool)
    is_global[0, 11] = True
    q, q_global = normal(1, heads, length, D), normal(1, heads, length, D)
    k, v, k_global, v_global = (normal(1, groups, length, w) for w in (D, 5, D, 5))
    o = reference(
        "longformer",
        {
            **{"q": q, "k": k, "v": v},
            **{"q_global": q_global, "k_global": k_global, "v_global": v_global},
            "is_global": is_global,
            "dilation": torch.tensor([1, 2, 3, 1, 1, 4], dtype=torch.int32),
        },
        {"window": 4},
    )["o"]
    expected = sdpa(q, k, v, mask=torch.stack(near) | (j == 11))
    expected[:, :, 11] = sdpa(q_global, k_global, v_global)[:, :, 11]
    assert_matches(o, expected)
