"""DeltaFormer against flash-linear-attention's naive function.

Its spec stands here, not in the library, as long as no kernel solves a system as long as a
sequence: a CPU runs it by torch, and says so.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mixc
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text

from .independent import assert_matches, assert_same_gradients, kept_in_float64, normal

B, T, H, D = 2, 19, 3, 5
SPEC = """\
mixer: deltaformer
about: >
  What a position writes is its value less what the earlier writings give its query; queries
  then attend to what was written. One query for both, as in the public code.
source: Zhong et al. 2025, arXiv 2505.19488
inputs:
  q: [B, I, H, D]
  k: [B, J, H, D]
  v: [B, J, H, E]
  beta: {dims: [B, T, H], default: 1, range: [0, 1]}
dims: {I: T, J: T}
params:
  scale: D ** -0.5
let:
  s: scale * sum(q * k, D)
stages:
  - attention:
      over: J
      score: s
      mask: j < i
      normalize: softmax
      output: {y: u}
      feedback: {u: v - beta * y}
  - attention:
      over: J
      score: s
      mask: j <= i
      normalize: softmax
      output: {o: u}
outputs: {o: [B, I, H, E]}
"""


@pytest.mark.parametrize("corrected", [True, False])
def test_matches_fla(corrected: bool) -> None:
    naive = pytest.importorskip("fla.ops.deltaformer.naive").naive_deltaformer_attn
    given = {name: normal(B, T, H, D, grad=True) for name in "qkv"}
    if corrected:
        given["beta"] = torch.rand(B, T, H, dtype=torch.float64).requires_grad_()
    found = run(load_text(SPEC), given)["o"]
    with kept_in_float64():
        expected = naive(**given)
    assert_matches(found, expected)
    assert_same_gradients(found, expected, given)


def test_a_call_says_what_runs_by_torch(tmp_path: Path) -> None:
    path = tmp_path / "deltaformer.yaml"
    path.write_text(SPEC, encoding="utf-8")
    q, k, v = (torch.randn(B, T, H, D) for _ in range(3))
    with pytest.warns(mixc.MixcWarning, match="deltaformer runs by torch.*`solve` along I"):
        found = mixc.load(path, backend="auto")(q, k, v)
    exact = run(load_text(SPEC), {"q": q.double(), "k": k.double(), "v": v.double()})["o"]
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
