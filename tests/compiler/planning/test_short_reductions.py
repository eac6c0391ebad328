"""Reductions over a few counted places are written out, and others stay."""

from __future__ import annotations

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower

SPEC = """
mixer: pairs
inputs: {{v: [B, J, E], ids: {{dims: [B, T], dtype: int32}}{more}}}
dims: {{I: T, J: T, K: {size}}}
attention:
  over: J
  score: 0
  mask: j <= i and {term}
  normalize: softmax
  output: {{o: v}}
outputs: {{o: [B, I, E]}}
"""
SAME = "ids[T=i - k] == ids[T=j - k]"


@pytest.mark.parametrize(
    ("term", "size", "more", "stored"),
    [
        (f"all({SAME}, K)", 3, "", False),
        (f"any({SAME}, K)", 1, "", False),
        (f"sum({SAME}, K) > 1", 4, "", False),
        (f"all({SAME}, K)", 5, "", True),  # it would be a long text
        (f"all({SAME} + w > 0, K)", 2, ", w: [K]", True),  # a tensor has the places
        (f"all({SAME}, K)", "T // 8 + 1", "", True),
    ],
)
def test_no_pair_is_stored(term: str, size: object, more: str, stored: bool) -> None:
    plan = lower(load_text(SPEC.format(term=term, size=size, more=more)), {"E": 16}, "float32")
    pairs = [b.name for b in plan.buffers if {"I", "J"} <= {*b.dims}]
    assert bool(pairs) == stored
