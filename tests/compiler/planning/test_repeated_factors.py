"""Factors of long sums that every row would compute again have kernels of their own."""

import pytest
import torch

from mixc.compiler.language.load import load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.task import PointwiseTask

from ..plans import assert_equal

SPEC = """
mixer: m
inputs: {{x: [B, T, C], a: [C, N]}}
dims: {{L: 9}}  # few: such sums are direct on a GPU
convolution:
  over: T
  lag: L
  kernel: {kernel}
  signal: {signal}
  output: y
outputs: {{y: [B, T, C]}}
"""
CASES = {
    "costly taps": ("sum(exp(-l * abs(a)), N)", "x", 1),
    "a costly signal": ("sum(a, N) * (l + 1)", "silu(x)", 2),
    "both": ("exp(-l * sum(abs(a), N))", "silu(x)", 2),
    "taps of each token": ("exp(-l * abs(x))", "x", 0),
    "cheap ones": ("l - 1", "2 * x", 0),
}


@pytest.mark.parametrize("case", CASES)
def test_they_are_stored_and_the_sum_is_the_same(case):
    kernel, signal, stored = CASES[case]
    mixer = load_text(SPEC.format(kernel=kernel, signal=signal))
    plan = lower(mixer, {"C": 3, "N": 2}, "float32")
    tasks = [task for task in plan.tasks if isinstance(task, PointwiseTask)]
    assert len(tasks) == 1 + stored
    assert_equal(mixer, tensors())


def test_backward_no_table_of_lags_and_tokens_is_stored():
    mixer = load_text(SPEC.format(kernel="sum(exp(-l * abs(a)), N)", signal="silu(x)"))
    backward = differentiate(mixer).backward
    plan = lower(backward, {"C": 3, "N": 2}, "float32")
    assert all(not {"L", "T"} <= {*buffer.dims} for buffer in plan.buffers)
    assert_equal(backward, tensors() | {"d_y": torch.randn(2, 9, 3, dtype=torch.float64)})


def tensors():
    torch.manual_seed(0)
    x, a = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 9, 3), (3, 2)))
    return {"x": x, "a": a}
