"""Attentions over several key axes, against every pair written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError
from mixc.ir.mixer import Attention, Map

SPEC = """\
mixer: pairs
inputs: {a: [I, S], b: [S, L], u: [S, E], v: [S, L, E], w: [I, L]}
attention:
  over: [S, L]
  score: a * b
  mask: b > 0 and s <= i
  normalize: softmax
  gain: w
  output: {o: v, n: u}
  lse: total_of
  weights: p
outputs: {o: [I, E], n: [I, E], p: [I, L, S], total_of: [I]}
"""


@pytest.fixture
def given() -> dict[str, Tensor]:
    """Row 0 sees nothing."""
    torch.manual_seed(0)
    shapes = {"a": (6, 4), "b": (4, 5), "u": (4, 3), "v": (4, 5, 3), "w": (6, 5)}
    made = {name: torch.randn(*shape, dtype=torch.float64) for name, shape in shapes.items()}
    made["b"][0] = -1
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def _weights(given: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(share [I, S, L], log of the total [I])."""
    score = given["a"][:, :, None] * given["b"]
    seen = (given["b"] > 0) & (torch.arange(4)[:, None] <= torch.arange(6)[:, None, None])
    total = torch.where(seen, score.exp(), 0.0).sum((1, 2))
    some = total > 0
    share = torch.where(seen, score.exp(), 0.0) / torch.where(some, total, 1.0)[:, None, None]
    return share, torch.where(some, torch.where(some, total, 1.0).log(), -torch.inf)


def test_one_softmax_over_both_axes(given: dict[str, Tensor]) -> None:
    made = run(load_text(SPEC), given)
    share, lse = _weights(given)
    gained = share * given["w"][:, None]
    expected = {
        "o": torch.einsum("isl,sle->ie", gained, given["v"]),
        "n": torch.einsum("isl,se->ie", gained, given["u"]),
        "p": share.transpose(1, 2),
        "total_of": lse,
    }
    for name, want in expected.items():
        torch.testing.assert_close(made[name], want, rtol=1e-12, atol=1e-12)

    def gradients(o: Tensor, p: Tensor) -> tuple[Tensor, ...]:
        loss = (o.sin() * 3).sum() + (p**2).sum()
        return torch.autograd.grad(loss, [given[name] for name in "abvw"])

    pairs = zip(
        gradients(made["o"], made["p"]), gradients(expected["o"], expected["p"]), strict=True
    )
    for found, want in pairs:
        torch.testing.assert_close(found, want, rtol=1e-11, atol=1e-11)


def test_it_is_one_attention_over_the_product() -> None:
    mixer = load_text(SPEC)
    attention, unfolded = mixer.stages
    assert isinstance(attention, Attention)
    assert isinstance(unfolded, Map)
    assert attention.over == "S_L"
    assert str(dict(mixer.sizes)["S_L"]) == "S * L"


def test_a_normaliser_sees_all_pairs(given: dict[str, Tensor]) -> None:
    """A reduction inside runs over both axes, of what is visible."""
    weight = "{weight: 'exp(score - max(score, L, S))', denominator: total + 1}"
    made = run(load_text(SPEC.replace("normalize: softmax", f"normalize: {weight}")), given)
    score = given["a"][:, :, None] * given["b"]
    seen = (given["b"] > 0) & (torch.arange(4)[:, None] <= torch.arange(6)[:, None, None])
    top = torch.where(seen, score, -torch.inf).amax((1, 2)).clamp_min(-1e300)
    weight_of = torch.where(seen, (score - top[:, None, None]).clamp_max(0).exp(), 0.0)
    expected = weight_of / (weight_of.sum((1, 2)) + 1)[:, None, None]
    torch.testing.assert_close(made["p"], expected.transpose(1, 2), rtol=1e-12, atol=1e-12)


def test_a_reduction_along_one_of_the_axes_is_refused() -> None:
    weight = "{weight: exp(score), denominator: 'total + sum(max(score, L), S)'}"
    with pytest.raises(SpecError) as error:
        load_text(SPEC.replace("normalize: softmax", f"normalize: {weight}"))
    message = str(error.value)
    assert ":7:" in message
    assert "a term along L alone, of several key axes" in message
    assert "write `sum(x, S, L)`, or use one key axis" in message


def test_parts_may_have_several_axes(given: dict[str, Tensor]) -> None:
    """Beside another part they share its softmax; weights have the axes as listed."""
    spec = """\
mixer: parted
inputs: {a: [I, S], b: [S, L], c: [I, J], u: [J, E], v: [S, L, E]}
attention:
  parts:
    - {over: [S, L], score: a * b, output: {o: v}, weights: p}
    - {over: J, score: c, output: {o: u}}
outputs: {o: [I, E], p: [I, S, L]}
"""
    named = {name: given[name].detach() for name in "abv"}
    named |= {"c": torch.randn(6, 7).double(), "u": torch.randn(7, 3).double()}
    scores = (named["a"][:, :, None] * named["b"]).flatten(1)
    weights = torch.softmax(torch.cat((scores, named["c"]), 1), 1)
    values = torch.cat((named["v"].flatten(0, 1), named["u"]))
    made = run(load_text(spec), named)
    torch.testing.assert_close(made["o"], weights @ values, rtol=1e-12, atol=1e-12)
    expected = weights[:, :20].reshape(6, 4, 5)
    torch.testing.assert_close(made["p"], expected, rtol=1e-12, atol=1e-12)


def test_keys_without_an_axis_of_their_own_are_told_how_to_have_one() -> None:
    text = """
mixer: m
inputs: {q: [B, T, D], k: [B, T, D], v: [B, T, E]}
attention: {over: J, score: "sum(q * k, D)", output: {o: v}}
outputs: {o: [B, T, E]}
"""
    with pytest.raises(SpecError, match=r"write `dims: \{I: T, J: T\}`"):
        load_text(text)
