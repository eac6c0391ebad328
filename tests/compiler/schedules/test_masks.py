"""Random masks through the whole of lowering: the plan, executed, against the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.ir.mixer import Mixer

from ..plans import assert_equal, interpret

SPEC = """
mixer: trial
inputs:
  q: [B, H, I, D]
  k: [B, H, J, D]
  v: [B, H, J, E]
  doc: {{dims: [B, T], dtype: int32, sorted: true}}
  span: [H]
  flag: {{dims: [H], dtype: bool}}
  far: {{dims: [J], dtype: bool}}
  start: {{dims: [B, T], dtype: int32}}
  pair: {{dims: [I, J], dtype: bool}}
dims: {{I: T, J: T}}
params:
  window: 3
  block: 2
  limit: {{default: 4, runtime: true}}
attention:
  over: J
  score: sum(q * k, D)
  mask: {mask}
  normalize: softmax
  lse: lse
  output: {{o: v}}
outputs: {{o: [B, H, I, E], lse: [B, H, I]}}
"""
CROSS = """
mixer: trial
inputs:
  q: [B, H, I, D]
  k: [B, H, J, D]
  v: [B, H, J, E]
  row: {{dims: [I], dtype: int32, sorted: true}}
  column: {{dims: [J], dtype: int32, sorted: true}}
  span: [H]
params:
  window: 3
attention:
  over: J
  score: sum(q * k, D)
  mask: {mask}
  normalize: softmax
  lse: lse
  output: {{o: v}}
outputs: {{o: [B, H, I, E], lse: [B, H, I]}}
"""
ATOMS = [
    "j <= i",
    "j < i",
    "j >= i",
    "i - j < window",
    "abs(i - j) <= window",
    "j < window",
    "j < limit",
    "i - j > limit",
    "i < 5",
    "doc[i] == doc[j]",
    "doc[j] < 2",
    "i - j < span",
    "flag",
    "far[j]",
    "j < start[i]",
    "pair",
    "(i - j) % 3 == 0",
    "i // block == j // block",
    "j // 4 <= i // 4",
    "2 * j <= i + 3",
    "j % block == 0",
]
CROSS_ATOMS = [
    "j <= i",
    "j <= i + 2",
    "2 * i >= j",
    "i - j < window",
    "j - i < span",
    "row == column",
    "row < column",
    "j < window",
    "i + j < 9",
]


def trees(atoms: list[str]) -> st.SearchStrategy[str]:
    """Conjunctions, unions and negations of atoms, as a spec has them."""
    return st.recursive(
        st.sampled_from(atoms),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda p: f"({p[0]}) and ({p[1]})"),
            st.tuples(inner, inner).map(lambda p: f"({p[0]}) or ({p[1]})"),
            inner.map(lambda p: f"not ({p})"),
        ),
        max_leaves=5,
    )


def inputs(mixer: Mixer, rows: int, columns: int, seed: int) -> dict[str, Tensor]:
    """Tensors for a trial; ids and starts lie where they matter."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"B": 1, "H": 2, "I": rows, "J": columns, "T": rows, "D": 3, "E": 2}
    made: dict[str, Tensor] = {}
    for given_input in mixer.inputs:
        shape = [sizes[d] for d in given_input.dims]
        if given_input.name == "span":
            made["span"] = torch.tensor([float("inf"), 2.5], dtype=torch.float64)
        elif given_input.dtype == "bool":
            made[given_input.name] = torch.rand(shape, generator=generator) < 0.4
        elif given_input.dtype is not None:
            ids = torch.randint(0, 4, shape, generator=generator, dtype=torch.int32)
            made[given_input.name] = ids.sort(-1).values if given_input.sorted else ids * 2
        else:
            made[given_input.name] = torch.randn(shape, generator=generator, dtype=torch.float64)
    return made


@settings(max_examples=60, deadline=None)
@given(
    trees(ATOMS),
    st.integers(0, 11),
    st.integers(0, 9),
    st.sampled_from([2, 4]),
    st.sampled_from([1, 1, 3]),
)
@example("(j <= i) and ((i - j < window) or (j < limit))", 11, 0, 2, 1)
@example("(j <= i) and ((i - j < window) or (j < limit))", 11, 0, 2, 3)
@example("(j <= i) and (doc[i] == doc[j])", 9, 1, 4, 2)
@example("((pair) or (j < window)) and (i - j < span)", 10, 2, 2, 1)
@example("pair", 10, 2, 2, 3)
def test_random_masks(mask: str, length: int, seed: int, block: int, splits: int) -> None:
    """``splits`` deals the keys out in shares."""
    mixer = load_text(SPEC.format(mask=mask))
    tensors = inputs(mixer, length, length, seed)
    assert_equal(mixer, tensors, {"limit": seed}, block, splits=splits)


@settings(max_examples=30, deadline=None)
@given(trees(CROSS_ATOMS), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
@example("row == column", 5, 0, 0)
@example("row == column", 0, 5, 0)
def test_random_masks_of_unequal_lengths(mask: str, rows: int, columns: int, seed: int) -> None:
    mixer = load_text(CROSS.format(mask=mask))
    assert_equal(mixer, inputs(mixer, rows, columns, seed))


@pytest.mark.parametrize("length", [0, 1, 4, 5])
def test_no_mask(length: int) -> None:
    mixer = load_text(SPEC.format(mask="true"))
    assert_equal(mixer, inputs(mixer, length, length, 0))


@pytest.mark.parametrize("value", ["gate * v", "v * gate / 2", "gate * pair * v"])
def test_a_hidden_factor_of_a_value_may_be_no_number(value: str) -> None:
    text = SPEC.format(mask="j <= i").replace("{o: v}", f"{{o: {value}}}")
    text = text.replace("  span: [H]", "  span: [H]\n  gate: [B, J]")
    mixer = load_text(text.replace("pair: {dims: [I, J], dtype: bool}", "pair: [I, J]"))
    tensors = inputs(mixer, 9, 9, 0)
    tensors["gate"][:, 6] = torch.nan
    made = interpret(mixer, tensors, {"limit": 0}, 4, 1)
    torch.testing.assert_close(made["o"], run(mixer, tensors)["o"], equal_nan=True)
    assert made["o"][:, :, :6].isfinite().all()
