"""Linear attention and its kin with constant decays: fla, transformers, torch, or the formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from .independent import assert_agrees, kept_in_float64, normal, sdpa

B, T, H, D, E = 2, 13, 6, 5, 7


def tensors(groups: int = H, length: int = T) -> dict[str, Tensor]:
    """q, k, v as flash-linear-attention lays them out, with gradients."""
    return {
        "q": normal(B, length, H, D, grad=True),
        "k": normal(B, length, groups, D, grad=True),
        "v": normal(B, length, groups, E, grad=True),
    }


def heads_first(x: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x[name].transpose(1, 2) for name in "qkv"}


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_linear_matches_fla(groups: int) -> None:
    naive = pytest.importorskip("fla.ops.linear_attn.naive").naive_recurrent_linear_attn
    x = tensors(groups) | {"S0": normal(B, groups, D, E, grad=True)}
    repeats = H // groups
    k, v = (x[name].repeat_interleave(repeats, 2) for name in "kv")
    with kept_in_float64():
        start = x["S0"].repeat_interleave(repeats, 1)
        o, last = naive(x["q"], k, v, initial_state=start, output_final_state=True)
    assert_agrees("linear", x, {"o": o, "S": last[:, ::repeats]})


def test_linear_without_a_start_matches_fla() -> None:
    naive = pytest.importorskip("fla.ops.linear_attn.naive").naive_recurrent_linear_attn
    x = tensors()
    with kept_in_float64():
        o, _ = naive(**x, scale=0.3)
    assert_agrees("linear", x, {"o": o}, {"scale": 0.3})


def test_linear_normalized_matches_fla() -> None:
    naive = pytest.importorskip("fla.ops.linear_attn.naive").naive_recurrent_linear_attn
    x = tensors() | {"S0": normal(B, H, D, E, grad=True), "z0": normal(B, H, D).exp()}
    phi = {name: nn.functional.elu(x[name]) + 1 for name in "qk"}
    start = x["S0"], x["z0"][:, None]
    with kept_in_float64():
        o, (last, z) = naive(
            phi["q"],
            phi["k"],
            x["v"],
            scale=1.0,
            normalize=True,
            initial_state=start,
            output_final_state=True,
        )
    expected = {"o": o, "S": last, "z": z[:, 0]}
    assert_agrees("linear_normalized", x, expected, {"eps": 1e-10})


def test_performer_matches_the_formula() -> None:
    x = tensors() | {"w": normal(11, D)}
    q, k, v = heads_first(x).values()

    def features(u: Tensor) -> Tensor:
        u = u / D**0.25
        return torch.exp(u @ x["w"].T - u.square().sum(-1, keepdim=True) / 2) / math.sqrt(11)

    weights = (features(q) @ features(k).mT).tril()
    o = weights @ v / weights.sum(-1, keepdim=True)
    assert_agrees("performer", x, {"o": o.transpose(1, 2)})


def test_performer_keeps_its_range() -> None:
    """Exponents of 900 in float64 would leave nothing."""
    x = tensors() | {"w": 3 * normal(11, D)}
    x["q"] = (60 * x["q"].detach()).requires_grad_()
    q, k, v = heads_first(x).values()
    log_q, log_k = (
        u / D**0.25 @ x["w"].T - (u / D**0.25).square().sum(-1, keepdim=True) / 2 for u in (q, k)
    )
    pairs = torch.logsumexp(log_q[..., :, None, :] + log_k[..., None, :, :], -1)
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    o = torch.softmax(pairs.masked_fill(~causal, -math.inf), -1) @ v
    assert_agrees("performer", x, {"o": o.transpose(1, 2)}, tolerance=1e-8)


@pytest.mark.parametrize("name", ["based", "rebased"])
def test_polynomial_features_match_fla(name: str) -> None:
    module = pytest.importorskip(f"fla.ops.{name}.naive")
    x = tensors()
    with kept_in_float64():
        o = getattr(module, f"naive_parallel_{name}")(**heads_first(x))
    assert_agrees(name, x, {"o": o.transpose(1, 2)})


def test_retention_matches_fla() -> None:
    naive = pytest.importorskip("fla.ops.retention.naive").naive_retention
    x = tensors()
    with kept_in_float64():
        o = naive(**heads_first(x))
    assert_agrees("retention", x, {"o": o.transpose(1, 2)})


def test_lightning_matches_fla() -> None:
    """TransNormerLLM's slopes, given to the function with a decay per token."""
    naive = pytest.importorskip("fla.ops.simple_gla.naive").naive_recurrent_simple_gla
    slope = 8 / H * (1 - 3 / 12) * torch.arange(H, dtype=torch.float64)
    x = tensors() | {"S0": normal(B, H, D, E, grad=True)}
    q, k, v, start = x.values()
    with kept_in_float64():
        o, last = naive(q, k, v, -slope.expand(B, T, H), scale=1.0, initial_state=start)
    assert_agrees("lightning", x | {"slope": slope}, {"o": o, "S": last})


class AsGiven(nn.Module):
    """In place of a projection: the same number whatever comes in, or what comes in."""

    def __init__(self, number: float | None = None, width: int = 0) -> None:
        super().__init__()
        self.number, self.width = number, width

    def forward(self, x: Tensor) -> Tensor:
        return x if self.number is None else x.new_full((*x.shape[:2], self.width), self.number)


def test_lightning_matches_minimax() -> None:
    minimax = pytest.importorskip("transformers.models.minimax.modeling_minimax")
    width = 4
    config = minimax.MiniMaxConfig(
        hidden_size=H * width,
        num_attention_heads=H,
        head_dim=width,
        num_hidden_layers=4,
        layer_types=["linear_attention"] * 4,
        block_size=4,
    )
    x = {name: normal(B, T, H, width, grad=True) for name in "qkv"}
    with kept_in_float64():
        layer = minimax.MiniMaxLightningAttention(config, layer_idx=1)
        layer.act_fn = layer.qkv_proj = layer.norm = layer.out_proj = AsGiven()
        layer.output_gate = AsGiven(math.inf, H * width)
        together = torch.cat([x["q"], x["k"], x["v"]], -1).reshape(B, T, -1)
        o, last = layer(together, position_embeddings=None, attention_mask=None)
    slope = layer.slope_rate.reshape(H)
    expected = {"o": o.reshape(B, T, H, width), "S": last}
    assert_agrees("lightning", x | {"slope": slope}, expected)


@pytest.mark.parametrize("size", [1.0, 200.0])
def test_aaren_is_causal_attention_by_one_query(size: float) -> None:
    x = {
        "q": (size * normal(H, D)).requires_grad_(),
        "k": normal(B, H, T, D, grad=True),
        "v": normal(B, H, T, E, grad=True),
    }
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    o = sdpa(x["q"][:, None].expand(B, H, T, D), x["k"], x["v"], mask=causal)
    assert_agrees("aaren", x, {"o": o})


@pytest.mark.parametrize(("length", "groups"), [(1, 1), (13, 1), (16, 3), (17, 6)])
def test_log_linear_is_flas_sum_over_levels(length: int, groups: int) -> None:
    naive = pytest.importorskip("fla.ops.log_linear_attn.naive")
    levels = math.ceil(math.log2(length)) + 1
    x = {
        "q": normal(B, length, groups, D, grad=True),
        "k": normal(B, length, groups, D, grad=True),
        "v": normal(B, length, H, E, grad=True),
        "g": nn.functional.logsigmoid(4 * normal(B, length, H)).requires_grad_(),
        "weight": normal(B, length, H, levels, grad=True),
    }
    with kept_in_float64():
        o = naive.naive_log_linear_attn(*x.values())
    assert_agrees("log_linear", x, {"o": o})
