"""Small words of the language, each on every backend against plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixc.api import LoadedMixer
from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError

BACKENDS = pytest.mark.parametrize("backend", ["reference", "cpu", "interpreter"])
ATTENTION = """\
mixer: rows
inputs: {{q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E], s: {{dims: [H], default: 0}}}}
dims: {{I: T, J: T}}
attention:
  over: J
  score: sum(q * k, D)
  mask: j < i
  normalize: {normalize}
  output: {{o: v}}
outputs: {{o: [B, H, I, E]}}
"""
SEEN = torch.ones(9, 9).tril(-1).bool()


def attention(normalize: str, backend: str) -> LoadedMixer:
    return LoadedMixer(load_text(ATTENTION.format(normalize=normalize)), backend)  # type: ignore[arg-type]


def tensors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 9, 8, generator=make) for _ in range(3))
    return q, k, v, (q.double() @ k.double().mT)


@BACKENDS
def test_lerp(backend: str) -> None:
    text = "mixer: between\ninputs: {a: [B, T], b: [B, T], w: [T]}\n"
    text += 'map: {o: "lerp(a, b, w)"}\noutputs: {o: [B, T]}\n'
    a, b, w = torch.randn(2, 5, requires_grad=True), torch.randn(2, 5), torch.rand(5)
    found = LoadedMixer(load_text(text), backend)(a, b, w)  # type: ignore[arg-type]
    torch.testing.assert_close(found, torch.lerp(a, b, w))
    (slope,) = torch.autograd.grad(found.sum(), a)
    torch.testing.assert_close(slope, (1 - w).expand(2, 5))


@BACKENDS
def test_a_denominator_reads_the_scores_of_the_visible_pairs(backend: str) -> None:
    q, k, v, s = tensors()
    attend = attention("{weight: exp(score), denominator: 'total + max(exp(score), J)'}", backend)
    weight = torch.where(SEEN, s.exp(), 0)
    whole = weight.sum(-1, keepdim=True) + weight.amax(-1, keepdim=True)
    wanted = weight / torch.where(whole > 0, whole, 1) @ v.double()
    torch.testing.assert_close(attend(q, k, v), wanted.float())

    attend = attention("{weight: relu(score), denominator: '1 + norm(score, J)'}", backend)
    weight = torch.where(SEEN, s, 0)
    wanted = weight.relu() / (1 + weight.norm(dim=-1, keepdim=True)) @ v.double()
    torch.testing.assert_close(attend(q, k, v), wanted.float())


def test_a_denominator_is_of_a_row() -> None:
    with pytest.raises(SpecError, match=r"the denominator has the axes \[B, H, I, J\]"):
        attention("{weight: exp(score), denominator: total + score}", "reference")


@BACKENDS
def test_a_sink_of_minus_infinity_is_none(backend: str) -> None:
    """Row 0 sees nothing at all then: neither output nor gradient is a NaN."""
    q, k, v, scores = tensors()
    s = torch.tensor([-torch.inf, 1.0])
    given = [t.requires_grad_() for t in (q, k, v, s)]
    attend = attention("{softmax: {sink: s}}", backend)
    found = attend(*given)
    scores = torch.where(SEEN, q.double() @ k.double().mT, -torch.inf)
    sink = s.double()[:, None, None].expand(1, 2, 9, 1)
    weights = torch.cat((scores, sink), -1)[:, :, 1:].softmax(-1)[..., :-1]
    wanted = torch.cat((torch.zeros(1, 2, 1, 8), (weights @ v.double()).float()), 2)
    torch.testing.assert_close(found, wanted)
    slopes, right = (torch.autograd.grad(o.sin().sum(), given) for o in (found, wanted))
    for mine, true in zip(slopes, right, strict=True):
        torch.testing.assert_close(mine, true, atol=1e-5, rtol=1e-5)
