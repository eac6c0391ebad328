"""What a row of a scan computes, in the order that takes the fewest operations."""

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.targets import AVX2, parse_target
from mixc.ir.tile import Elementwise, For, all_ops

HOPPER = parse_target("cuda:90")
TEXT = """
mixer: m
inputs: {{x: [B, T, C], d: [B, T, C], A: [C, N], w: [B, T, N]}}
recurrence:
  over: T
  state: {{h: [C, N]}}
  step:
    - h = {decay} * h + {added}
    - o = sum(h, N)
outputs: {{o: [B, T, C]}}
"""


def made(decay, added, target=HOPPER):
    text = TEXT.format(decay=decay, added=added)
    (kernel,) = lower(load_text(text), {"C": 64, "N": 16}, "fp32", target=target).kernels
    walk = next(op for op in kernel.program.body if isinstance(op, For))
    return kernel.program, [op for op in walk.body if isinstance(op, Elementwise)]


def whole_products(ops):
    return sum(op.fn == "mul" and op.out.axes == {"T", "C", "N"} for op in ops)


@pytest.mark.parametrize("added", ["d * w * x", "w * d * x", "x * (w * d)", "2 * d * w * x"])
def test_products_of_fewer_axes_come_first(added):
    _, ops = made("exp(d * A)", added)
    # of the decay, of what is added, and of what the block starts from
    assert whole_products(ops) == 3


def test_a_rate_is_scaled_once_for_all_rows():
    program, ops = made("exp(d * A)", "x")
    fns = [op.fn for op in all_ops(program.body) if isinstance(op, Elementwise)]
    assert "exp2" in fns
    assert "exp" not in fns
    assert whole_products(ops) == 2  # and of what the block starts from


def test_a_sigmoid_of_a_row_is_by_exp2():
    program, _ = made("sigmoid(d * A)", "x")
    fns = [op.fn for op in all_ops(program.body) if isinstance(op, Elementwise)]
    assert "exp2" in fns
    assert "sigmoid" not in fns


def test_a_cpu_keeps_the_terms_as_they_are():
    program, _ = made("exp(d * A)", "d * w * x", AVX2)
    fns = [op.fn for op in all_ops(program.body) if isinstance(op, Elementwise)]
    assert "exp" in fns
    assert "exp2" not in fns
