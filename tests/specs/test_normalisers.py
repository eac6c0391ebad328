"""Specs that change the weights' form: against transformers, torch, or the formula."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import flex_attention

from .independent import (
    assert_matches,
    assert_same_gradients,
    kept_in_float64,
    normal,
    positions,
    reference,
    sdpa,
)

B, H, T, D, E = 2, 6, 13, 5, 7


def tensors(groups: int = 2, keys: int = T) -> dict[str, Tensor]:
    """q, k, v as the specs here take them, with gradients."""
    return {
        "q": normal(B, H, T, D, grad=True),
        "k": normal(B, groups, keys, D, grad=True),
        "v": normal(B, groups, keys, E, grad=True),
    }


def grouped(x: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v with a key head for every query head."""
    k, v = (x[name].repeat_interleave(H // x[name].shape[1], dim=1) for name in "kv")
    return x["q"], k, v


def scores(x: dict[str, Tensor]) -> Tensor:
    q, k, _ = grouped(x)
    return q @ k.mT / math.sqrt(D)


def causal(length: int = T) -> Tensor:
    i, j = positions(length)
    return j <= i


def additive(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(~mask, -math.inf)


def eager_module(**fields: object) -> SimpleNamespace:
    """What transformers' eager attention functions read off their module."""
    return SimpleNamespace(num_key_value_groups=3, training=False, head_dim=D, **fields)


def check(name: str, x: dict[str, Tensor], expected: Tensor, **params: float) -> None:
    """Forward to 1e-10, gradients to 1e-9."""
    o = reference(name, x, params)["o"]
    assert_matches(o, expected)
    assert_same_gradients(o, expected, x)


def test_pointer_is_additive_attention_over_each_row_of_its_own_length() -> None:
    x = {
        "q": normal(B, T, D, grad=True),
        "k": normal(B, 9, D, grad=True),
        "v": normal(B, 9, E, grad=True),
        "w": normal(D, grad=True),
    }
    length = torch.tensor([9, 4], dtype=torch.int32)
    made = reference("pointer", {**x, "length": length})
    u = torch.einsum("d,bijd->bij", x["w"], torch.tanh(x["q"][:, :, None] + x["k"][:, None]))
    u = u.masked_fill(torch.arange(9) >= length[:, None, None], -math.inf)
    p = torch.softmax(u, dim=-1)
    assert_matches(made["p"], p)
    assert_matches(made["o"], p @ x["v"])
    assert_same_gradients(made["o"], p @ x["v"], x)


def test_pointer_to_nothing_is_zero_and_has_no_gradient() -> None:
    x = {"q": normal(1, 3, D, grad=True), "k": normal(1, 4, D), "v": normal(1, 4, E)}
    nothing = torch.zeros(1, dtype=torch.int32)
    made = reference("pointer", {**x, "w": normal(D), "length": nothing})
    assert not made["p"].any()
    assert not made["o"].any()
    (slope,) = torch.autograd.grad(made["o"].sum(), x["q"])
    assert not slope.any()


@pytest.mark.parametrize(
    "name", ["lssa", "lssar", "landmark", "softcap", "softmax1", "sigmoid", "relu"]
)
def test_one_token_takes_its_own_value_times_its_weight(name: str) -> None:
    x = {"q": normal(1, 2, 1, D), "k": normal(1, 1, 1, D), "v": normal(1, 1, 1, E)}
    score = (x["q"] * x["k"]).sum(-1, keepdim=True) / math.sqrt(D)
    weight = {
        "softmax1": torch.sigmoid(score),  # e^s / (1 + e^s)
        "sigmoid": torch.sigmoid(score),  # log 1 = 0
        "relu": torch.relu(score),
    }.get(name, torch.ones(1, 2, 1, 1))
    assert_matches(reference(name, x)["o"], weight * x["v"])


def lssa_weights(x: dict[str, Tensor]) -> Tensor:
    """Cosines times log D and the log of the row's length; softplus; rows that sum to 1."""
    q, k, _ = grouped(x)
    length = torch.arange(1, T + 1, dtype=torch.float64)[:, None]
    cosine = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).mT
    weight = functional.softplus(math.log(D) * length.log() * cosine).tril()
    return weight / weight.sum(-1, keepdim=True)


def test_lssa() -> None:
    x = tensors()
    check("lssa", x, lssa_weights(x) @ grouped(x)[2])


@pytest.mark.parametrize("power", [15, 3])
def test_lssar_sharpens_the_weights_of_lssa(power: int) -> None:
    x = tensors()
    length = torch.arange(1, T + 1, dtype=torch.float64)[:, None]
    offset = torch.ones(T, 1, dtype=torch.float64)
    offset[:3] = 0
    sharp = torch.relu(lssa_weights(x) * length - offset) ** power
    check("lssar", x, sharp / sharp.sum(-1, keepdim=True) @ grouped(x)[2], power=power)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("rows", [2 * T - 1, 9])
def test_urpe_multiplies_the_softmax_by_a_toeplitz_matrix(one_sided: bool, rows: int) -> None:
    x = tensors() | {"b": normal(H, rows, grad=True), "c": normal(H, rows, grad=True)}
    i, j = positions(T)
    row = (i - j).clamp(-(rows // 2), rows // 2) + rows // 2
    s = scores(x) + x["b"][:, row]
    p = torch.softmax(s + additive(causal()) if one_sided else s, dim=-1) * x["c"][:, row]
    check("urpe", x, p @ grouped(x)[2], causal=one_sided)


def skewed(q: Tensor, e: Tensor) -> Tensor:
    """The Music Transformer's own procedure: q · e with e's rows from far to near, then skewed."""
    by_row = functional.pad(q @ e.flip(-2).mT, (1, 0))
    return by_row.reshape(B, H, T + 1, T)[:, :, 1:]


def test_relative_skews_as_the_music_transformer() -> None:
    x = tensors() | {"e": normal(H, T, D, grad=True)}
    q, k, v = grouped(x)
    bias = skewed(q, x["e"]) / math.sqrt(D) + additive(causal())
    check("relative", x, sdpa(q, k, v, bias))


def test_relative_gives_far_keys_the_last_row() -> None:
    x = tensors() | {"e": normal(H, 4, D, grad=True)}
    q, k, v = grouped(x)
    far = x["e"][:, -1:].expand(H, T - 4, D)
    bias = skewed(q, torch.cat([x["e"], far], dim=1)) / math.sqrt(D) + additive(causal())
    check("relative", x, sdpa(q, k, v, bias))


@pytest.mark.parametrize("exclusive", [True, False])
def test_theme_is_two_attentions_and_a_gate(exclusive: bool) -> None:
    theme = {"k_theme": normal(B, 2, 4, D, grad=True), "v_theme": normal(B, 2, 4, E, grad=True)}
    x = tensors() | {"q_theme": normal(B, H, T, D, grad=True)} | theme
    inside = torch.rand(B, T) < 0.5
    own = sdpa(x["q"], x["k"], x["v"], causal())
    memory = sdpa(x["q_theme"], x["k_theme"], x["v_theme"])
    gate = inside[:, None, :, None]
    expected = ((own * ~gate if exclusive else own) + memory * gate) / 2
    o = reference("theme", {**x, "inside": inside}, {"exclusive": exclusive})["o"]
    assert_matches(o, expected)
    assert_same_gradients(o, expected, x)


def landmark_row(s: Tensor, i: int, block: int) -> Tensor:
    """The published grouped softmax for one query: a softmax inside each group, then shares.

    Group "here" holds the tokens of the query's block and the landmarks of the blocks before;
    each earlier block's tokens are a group of their own, scaled by its landmark's weight "here".
    """
    first = i // block * block
    own = [j for j in range(first, i + 1) if j % block != block - 1]
    marks = list(range(block - 1, first, block))
    here = dict(zip(own + marks, torch.softmax(s[own + marks], dim=0), strict=True))
    row: list[Tensor] = [s.new_zeros(())] * T
    for j in own:
        row[j] = here[j]
    for mark in marks:
        earlier = list(range(mark - block + 1, mark))
        for j, inside in zip(earlier, torch.softmax(s[earlier], dim=0), strict=True):
            row[j] = here[mark] * inside
    return torch.stack(row)


@pytest.mark.parametrize("block", [4, 2, 64])
def test_landmark_is_the_grouped_softmax(block: int) -> None:
    x = tensors()
    s = scores(x)
    rows = [
        [torch.stack([landmark_row(s[b, h, i], i, block) for i in range(T)]) for h in range(H)]
        for b in range(B)
    ]
    p = torch.stack([torch.stack(row) for row in rows])
    assert_matches(p.sum(-1), torch.ones(B, H, T))
    check("landmark", x, p @ grouped(x)[2], block=block)


def test_softcap_as_flex_attention_and_gemma2() -> None:
    from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

    x = tensors()
    q, k, v = grouped(x)

    def bend(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return torch.where(j <= i, 2.0 * torch.tanh(s / 2.0), -math.inf)

    o = reference("softcap", x, {"cap": 2.0})["o"]
    assert_matches(o, flex_attention(q.detach(), k.detach(), v.detach(), score_mod=bend))
    with kept_in_float64():
        gemma, _ = eager_attention_forward(
            eager_module(), x["q"], x["k"], x["v"], additive(causal()), softcap=2.0
        )
    assert_matches(o, gemma.transpose(1, 2))
    assert_same_gradients(o, gemma.transpose(1, 2), x)


@pytest.mark.parametrize("window", [0, 4])
def test_sink_as_gpt_oss(window: int) -> None:
    from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

    x = tensors() | {"logit": normal(H, grad=True)}
    i, j = positions(T)
    seen = (j <= i) & ((i - j < window) if window else True)
    o, _ = eager_attention_forward(
        eager_module(sinks=x["logit"]), x["q"], x["k"], x["v"], additive(seen), scaling=D**-0.5
    )
    check("sink", x, o.transpose(1, 2), window=window)


def test_softmax1_is_a_key_and_a_value_of_zeros() -> None:
    x = tensors()
    k, v = (functional.pad(x[name], (0, 0, 1, 0)) for name in "kv")
    seen = functional.pad(causal(), (1, 0), value=True)
    check("softmax1", x, sdpa(x["q"], k, v, seen))


def test_qk_norm_as_torch_rms_norm_before_sdpa() -> None:
    x = tensors() | {"wq": normal(D, grad=True), "wk": normal(D, grad=True)}
    q = functional.rms_norm(x["q"], (D,), x["wq"], eps=1e-6)
    k = functional.rms_norm(x["k"], (D,), x["wk"], eps=1e-6)
    check("qk_norm", x, sdpa(q, k, x["v"], causal()))


def test_qk_norm_as_qwen3() -> None:
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    norm = Qwen3RMSNorm(D, eps=1e-6).double()
    x = {name: t.detach() for name, t in tensors().items()}
    w = {"wq": norm.weight.detach(), "wk": norm.weight.detach()}
    expected = sdpa(norm(x["q"]), norm(x["k"]), x["v"], causal())
    assert_matches(reference("qk_norm", {**x, **w})["o"], expected, 1e-6)


def test_sigmoid_has_no_normaliser() -> None:
    x = tensors()
    p = torch.sigmoid(scores(x) - math.log(T)) * causal()
    check("sigmoid", x, p @ grouped(x)[2])


@pytest.mark.parametrize("keys", [T, 9])
def test_relu_divides_by_the_number_of_keys(keys: int) -> None:
    x = tensors(keys=keys)
    check("relu", x, functional.relu(scores(x)) / keys @ grouped(x)[2])


@pytest.mark.parametrize("backward_too", [True, False])
def test_dense_synthesizer_matches_two_linear_layers(backward_too: bool) -> None:
    x = {"x": normal(B, H, T, D, grad=True), "v": normal(B, H, T, E, grad=True)}
    x |= {"W1": normal(H, D, 4, grad=True), "b1": normal(H, 4, grad=True)}
    x |= {"W2": normal(H, 4, T + 3, grad=True), "b2": normal(H, T + 3, grad=True)}
    rows = []
    for h in range(H):
        hidden = functional.linear(x["x"][:, h], x["W1"][h].T, x["b1"][h]).relu()
        rows.append(functional.linear(hidden, x["W2"][h].T, x["b2"][h])[..., :T])
    visible = causal() | torch.tensor(backward_too)
    p = torch.stack(rows, 1).masked_fill(~visible, -math.inf).softmax(-1)
    ours = reference("synthesizer", x, {"causal": not backward_too})["o"]
    assert_matches(ours, p @ x["v"])
    assert_same_gradients(ours, p @ x["v"], x)
