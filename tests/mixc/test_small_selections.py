"""Choices, and attention to what is chosen, by the kernels of every backend that runs here."""

from __future__ import annotations

import pytest
import torch

from mixc.backends.cpu.configure import configure, defaults
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.targets import AVX2
from mixc.ir.verify_plan import verify_plan

from .test_small_specs import BACKENDS, _own_cache, check

__all__ = ["_own_cache"]

CHOSEN = """
mixer: chosen
inputs:
  x: [B, I, N]
  a: {dims: [I, N], dtype: bool}
  f: {dims: [N], dtype: bool}
  c: {dims: [I], dtype: int32}
  u: [B, I]
stages:
  - select: {over: N, score: x, among: a, keep: {top: c}, always: f, output: most}
  - select: {over: N, score: x, keep: {top: 3}, output: three}
  - select: {over: N, score: x, among: a, keep: {above: u}, output: large}
  - select: {over: N, score: x, keep: {top: c * c * c}, output: many}
outputs: {most: [B, I, N], three: [B, N, I], large: [B, I, N], many: [B, I, N]}
"""


@BACKENDS
@pytest.mark.parametrize("places", [80, 5, 0])
def test_the_best_candidates_of_each_row_are_chosen(backend: str, places: int) -> None:
    x = torch.randn(2, 21, places).round()  # equal scores abound
    x[:, 3, 1:], x[:, 4, 1:], x[:, :, 2:3] = torch.nan, torch.inf, -torch.inf
    a, f = torch.rand(21, places) < 0.6, torch.rand(places) < 0.1
    a[2] = False  # nothing to choose from
    c = (torch.arange(21) ** 2 // 2 - 1).int()  # none, some, and more than there are
    check(backend, CHOSEN, {"x": x, "a": a, "f": f, "c": c}, I=21, N=places)


CHOSEN_BLOCKS = """
mixer: chosen_blocks
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E], c: {dims: [B, I, N], dtype: bool}}
params: {block: 64}
dims: {I: T, J: T, N: (T + block - 1) // block}
attention:
  over: J
  score: sum(q * k, D)
  mask: j <= i and at(c, N=j // block)
  output: {o: v}
outputs: {o: [B, I, E]}
"""


@BACKENDS
def test_chosen_blocks_are_told_apart_by_their_first_keys(backend: str) -> None:
    c = torch.rand(2, 200, 4) < 0.2
    c[:, 70:90] = False  # rows that see nothing
    check(backend, CHOSEN_BLOCKS, {"c": c}, T=200, I=200, J=200)


def test_blocks_of_keys_lie_in_one_chosen_block_each() -> None:
    """Where rows are not listed for each block: keys that are dealt out in shares."""
    plan = lower(load_text(CHOSEN_BLOCKS), {"D": 16, "E": 16}, "float32", splits=2, target=AVX2)
    wide = configure(plan, {**defaults(AVX2), "block_keys": 256})
    blocks = [{t.dim: t.block for t in kernel.program.tiles} for kernel in wide.kernels]
    # of the table, and of the attention that reads it; what merges shares has no keys
    assert [of["J"] for of in blocks if "J" in of] == [64, 64]
    verify_plan(wide)
