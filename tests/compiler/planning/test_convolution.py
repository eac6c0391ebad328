"""Sums over lags are found by their index maps, and are tasks that a plan checks and reads back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.data_text import read_data, write_data
from mixc.ir.errors import VerificationError
from mixc.ir.plan import Plan
from mixc.ir.targets import AVX2, EVERY_GPU, AnyTarget
from mixc.ir.task import ConvolutionTask
from mixc.ir.verify_plan import verify_plan

SPEC = """
mixer: sums
inputs: {{x: [B, T, C], k: [C, L]}}
map: {{y: "{sum}"}}
outputs: {{y: [B, T, C]}}
"""


def planned(sum: str, target: AnyTarget = AVX2) -> Plan:
    mixer = load_text(SPEC.format(sum=sum), "sums.yaml")
    return lower(mixer, {}, "float32", target=target, fft_lags=1)


def tasks(plan: Plan) -> list[ConvolutionTask]:
    return [task for task in plan.tasks if isinstance(task, ConvolutionTask)]


@pytest.mark.parametrize(
    ("sum", "signs"),
    [
        ("sum(k * x[T=t - l], L)", [(1, -1)]),
        ("sum(x[T=t + l + 1] * (2 * k), L)", [(1, 1)]),
        ("sum(k * x[T=T - 1 - t - l], L)", [(-1, -1)]),
        ("sum(k * x[T=t - l] - k * x[T=t + l], L)", [(1, -1), (1, 1)]),
        ("sum(k * x[T=t - 2 * l], L)", []),
        ("sum(k * x[T=t - l] * t * l, L)", [(1, -1)]),
        ("sum(k * exp(x[T=t - l] * k), L)", []),
    ],
)
def test_what_the_index_says(sum: str, signs: list[tuple[int, int]]) -> None:
    assert [(t.row_sign, t.lag_sign) for t in tasks(planned(sum))] == signs


def test_a_gpu_has_direct_sums_and_says_why() -> None:
    plan = planned("sum(k * x[T=t - l], L)", EVERY_GPU)
    assert not tasks(plan)
    assert any("kernels of a GPU have no transform" in finding for finding in plan.findings)


def test_the_text_reads_back() -> None:
    plan = planned("sum(k * x[T=t - l], L)")
    assert read_data(write_data(plan)) == plan


@pytest.mark.parametrize("change", [{"lag_sign": 2}, {"lag": "T"}, {"lanes": "T"}, {"row": "C"}])
def test_a_task_that_is_no_sum_over_lags_is_refused(change: dict[str, object]) -> None:
    plan = planned("sum(k * x[T=t - l], L)")
    wrong = tuple(replace(t, **change) if t in tasks(plan) else t for t in plan.tasks)
    with pytest.raises(VerificationError, match="no sum over lags"):
        verify_plan(replace(plan, tasks=wrong, kernels=()))
