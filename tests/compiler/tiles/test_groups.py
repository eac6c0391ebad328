"""Sums along an axis that is that of the groups too, as plans against the reference."""

from __future__ import annotations

import pytest
import torch

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.errors import UnsupportedError

from ..plans import assert_equal

SPEC = """
mixer: m
inputs: {x: [B, D]}
map:
  y: sum(x, D, D=INDEX)
outputs: {y: [B, D]}
"""


@pytest.mark.parametrize(
    ("index", "size"),
    [
        ("(d + D // 2) % D", 8),  # a rotary embedding's halves
        ("(d + D // 2) % D", 7),
        ("d + 1 - 2 * (d % 2)", 6),  # and its neighbours
        ("(d - 3) % D", 5),
        ("D - 1 - d", 5),
        ("(3 * d) % D", 8),  # back by itself
    ],
)
def test_each_group_has_one_member(index: str, size: int) -> None:
    mixer = load_text(SPEC.replace("INDEX", index))
    assert_equal(mixer, {"x": torch.randn(3, size, dtype=torch.float64)})


def test_what_is_summed_may_hold_a_sum_along_that_axis() -> None:
    text = SPEC.replace("sum(x, D, D=INDEX)", "sum(x * sum(x ** 2, D), D, D=(d + 2) % D)")
    assert_equal(load_text(text), {"x": torch.randn(3, 5, dtype=torch.float64)})


@pytest.mark.parametrize("index", ["d // 2", "(2 * d) % D", "(3 * d) % D", "d + 1"])
def test_groups_of_several_members_are_no_kernel(index: str) -> None:
    mixer = load_text(SPEC.replace("INDEX", index))
    with pytest.raises(UnsupportedError, match=r"a sum along D for each .* along D itself"):
        lower(mixer, {"D": 10}, "float32")


HEADS = """
mixer: m
inputs: {x: [B, T, H, D], w: [T, H], z: [G]}
heads: {G: H}
stages:
  - recurrence: {over: T, state: {S: [D]}, step: [S = S + x, r = S]}
  - map: {y: "z * OP(w * r, H, G=h // (H // G))"}
outputs: {y: [B, T, G, D]}
"""


@pytest.mark.parametrize("op", ["sum", "max"])
@pytest.mark.parametrize(("heads", "groups"), [(6, 2), (3, 3), (4, 1)])
def test_a_group_looks_at_its_own_heads_alone(op: str, heads: int, groups: int) -> None:
    mixer = load_text(HEADS.replace("OP", op))
    x = torch.randn(2, 5, heads, 3, dtype=torch.float64)
    w = torch.randn(5, heads, dtype=torch.float64)
    z = torch.randn(groups, dtype=torch.float64)
    assert_equal(mixer, {"x": x, "w": w, "z": z})
    kernel = lower(mixer, {"D": 3}, "float32").kernels[-1]
    assert {tile.dim for tile in kernel.program.tiles} == {"T", "D"}
