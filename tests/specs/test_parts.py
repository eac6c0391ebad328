"""Attentions in parts against one softmax over keys that lie end to end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text

from .independent import assert_matches, assert_same_gradients, normal, reference, sdpa

B, T, H, D, E = 2, 19, 6, 5, 7

COMBINER = """\
mixer: combiner
about: Combiner's fixed pattern, own tokens up to the query and earlier segments by their summaries.
source: Ren et al. 2021, arXiv 2107.05768
inputs:
  q: [B, I, H, D]
  k: [B, J, H, D]
  v: [B, J, H, E]
dims: {I: T, J: T, N: (T + block - 1) // block}
params:
  block: 64
  scale: D ** -0.5
let:
  k_segment: max(k, J, N=j // block)
  q_segment: scale * max(q, I, N=i // block)
stages:
  - attention:
      over: J
      score: sum(q_segment * k, D)
      mask: j // block == n
      output: {v_segment: v}
  - attention:
      parts:
        - over: J
          score: scale * sum(q * k, D)
          mask: j <= i and j // block == i // block
          output: {o: v}
        - over: N
          score: scale * sum(q * k_segment, D)
          mask: n < i // block
          output: {o: v_segment}
outputs:
  o: [B, I, H, E]
"""


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_persistent_memory_is_keys_in_front(groups: int) -> None:
    inputs = {
        "q": normal(B, H, T, D, grad=True),
        "k": normal(B, groups, T, D, grad=True),
        "v": normal(B, groups, T, E, grad=True),
        "k_memory": normal(groups, 4, D, grad=True),
        "v_memory": normal(groups, 4, E, grad=True),
    }
    ours = reference("persistent", inputs)["o"]
    k, v = (
        torch.cat((inputs[f"{x}_memory"].expand(B, -1, -1, -1), inputs[x]), 2) for x in ("k", "v")
    )
    theirs = sdpa(inputs["q"], k, v, mask=torch.ones(T, T + 4, dtype=torch.bool).tril(4))
    assert_matches(ours, theirs)
    assert_same_gradients(ours, theirs, inputs)


def _combined(q: Tensor, k: Tensor, v: Tensor, block: int) -> Tensor:
    """Combiner's fixed pattern for one head, query by query."""
    scale = D**-0.5
    segments = [slice(at, at + block) for at in range(0, T, block)]
    keys = [k[s].amax(0) for s in segments]
    values = [torch.softmax(k[s] @ (scale * q[s]).amax(0), 0) @ v[s] for s in segments]
    rows = []
    for i in range(T):
        own = i // block
        near = slice(own * block, i + 1)
        seen_keys = torch.cat((k[near], *(key[None] for key in keys[:own])))
        seen_values = torch.cat((v[near], *(value[None] for value in values[:own])))
        rows.append(torch.softmax(scale * seen_keys @ q[i], 0) @ seen_values)
    return torch.stack(rows)


@pytest.mark.parametrize("block", [1, 4, 32])
def test_combiner(block: int) -> None:
    inputs = {
        "q": normal(B, T, H, D, grad=True),
        "k": normal(B, T, H, D, grad=True),
        "v": normal(B, T, H, E, grad=True),
    }
    ours = run(load_text(COMBINER), inputs, {"block": block})["o"]
    theirs = torch.stack(
        [
            torch.stack(
                [_combined(*(x[b, :, h] for x in inputs.values()), block) for h in range(H)], 1
            )
            for b in range(B)
        ]
    )
    assert_matches(ours, theirs)
    assert_same_gradients(ours, theirs, inputs)
