"""Sums over lags end where the signal does."""

import pytest
import torch

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.tile import Constant, For, all_ops

from ..plans import assert_equal

SPEC = """
mixer: m
inputs: {x: [B, T, C], h: [C, L]}
map: {y: "sum(h * PLACE, L)"}
outputs: {y: [B, T, C]}
"""


@pytest.mark.parametrize(
    "place", ["x[T=t - l]", "x[T=t + l + 1]", "x[T=t - 2 * (L - 1 - l)]", "x[T=t + l - L // 2]"]
)
@pytest.mark.parametrize("length", [3, 13])
def test_a_program_visits_the_lags_that_its_rows_have(place, length):
    mixer = load_text(SPEC.replace("PLACE", place))
    (kernel,) = lower(mixer, {"C": 2, "L": 7}, "float32").kernels
    ops = list(all_ops(kernel.program.body))
    (loop,) = [op for op in ops if isinstance(op, For)]
    fixed = {op.out for op in ops if isinstance(op, Constant)}
    assert not {loop.start, loop.stop} <= fixed, "all of them, for every block of rows"
    x, h = (torch.randn(*s, dtype=torch.float64) for s in ((2, length, 2), (2, 7)))
    assert_equal(mixer, {"x": x, "h": h})
