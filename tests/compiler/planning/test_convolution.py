"""Sums over lags are found by their index maps, and are tasks that a plan checks and reads back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.compiler.planning import convolution
from mixc.ir.data_text import read_data, write_data
from mixc.ir.errors import VerificationError
from mixc.ir.expression import Literal
from mixc.ir.plan import Plan
from mixc.ir.targets import AVX2, EVERY_GPU, AnyTarget
from mixc.ir.task import ConvolutionTask, TransformTask
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


def transforms(plan: Plan) -> int:
    return sum(isinstance(task, TransformTask) for task in plan.tasks)


@pytest.mark.parametrize(
    ("sizes", "why"),
    [
        ({"L": 511}, "511 positions of L are fewer than 512"),
        ({}, "how many positions L has is known at run time only"),
    ],
)
def test_a_gpu_has_direct_sums_of_few_lags_and_says_why(sizes: dict[str, int], why: str) -> None:
    mixer = load_text(SPEC.format(sum="sum(k * x[T=t - l], L)"), "sums.yaml")
    mixer = replace(mixer, sizes=tuple((d, Literal(n)) for d, n in sizes.items()))
    if not sizes:  # a length that the taps have for themselves
        text = SPEC.format(sum="sum(k * x[T=t - l], L)").replace("k: [C, L]", "k: [L, C]")
        mixer = load_text(text, "sums.yaml")
    plan = lower(mixer, {"C": 8}, "float32", target=EVERY_GPU)
    assert not tasks(plan)
    assert not transforms(plan)
    assert f"y: a sum over the lags L, sum by sum: {why}" in plan.findings


@pytest.mark.parametrize(
    ("sum", "count"),
    [
        ("sum(k * x[T=t - l], L)", 3),
        ("2 * sum(x[T=t + l + 1] * k, L)", 3),
        ("sum(k * x[T=T - 1 - t - l], L)", 3),
        ("sum(k * x[T=t - l] - k * x[T=t + l], L)", 4),  # of each factor one
        ("sum(sum(k * x[T=t - l], L), C) + x", 3),
    ],
)
@pytest.mark.parametrize("lengths", [(13, 5), (5, 13), (1, 1), (64, 64)])
def test_a_gpu_has_sums_around_a_longer_axis(
    sum: str, count: int, lengths: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "GPU_LAGS", 1)
    mixer = load_text(SPEC.format(sum=sum), "sums.yaml")
    sizes = {"B": 2, "T": lengths[0], "L": lengths[1], "C": 3}
    plan = lower(mixer, {"C": 3, "L": lengths[1]}, "float32", target=EVERY_GPU, fft_lags=1)
    assert transforms(plan) == count
    assert "y: a sum over the lags L, by a fast Fourier transform" in plan.findings
    inputs = sample_inputs(mixer, sizes, torch.float32, seed=1)
    found, wanted = run_plan(plan, inputs, sizes)["y"], run(mixer, inputs)["y"]
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "sum",
    [
        "sum(k * x[T=t - l], L)",
        "sum(x[T=t + l + 1] * k, L)",
        "sum(k * x[T=T - 1 - t - l], L)",
        "sum(k * x[T=t - l], L, C) * x",
    ],
)
def test_what_is_not_finite_reaches_the_rows_that_read_it_alone(
    sum: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of padding, say, that nobody filled: what is before them does not read them."""
    monkeypatch.setattr(convolution, "GPU_LAGS", 1)
    mixer = load_text(SPEC.format(sum=sum), "sums.yaml")
    plan = lower(mixer, {"C": 3, "L": 6}, "float32", target=EVERY_GPU, fft_lags=1)
    assert transforms(plan) == 3
    sizes = {"B": 2, "T": 20, "L": 6, "C": 3}
    inputs = sample_inputs(mixer, sizes, torch.float32, seed=1)
    inputs["x"][1, 9, 2] = value
    found, wanted = run_plan(plan, inputs, sizes)["y"], run(mixer, inputs)["y"]
    assert torch.equal(found.isfinite(), wanted.isfinite())
    known = wanted.isfinite()
    assert 0 < known.sum() < known.numel()
    torch.testing.assert_close(found[known], wanted[known], rtol=1e-10, atol=1e-10)


def test_the_text_reads_back() -> None:
    plan = planned("sum(k * x[T=t - l], L)")
    assert read_data(write_data(plan)) == plan


@pytest.mark.parametrize("change", [{"lag_sign": 2}, {"lag": "T"}, {"lanes": "T"}, {"row": "C"}])
def test_a_task_that_is_no_sum_over_lags_is_refused(change: dict[str, object]) -> None:
    plan = planned("sum(k * x[T=t - l], L)")
    wrong = tuple(replace(t, **change) if t in tasks(plan) else t for t in plan.tasks)
    with pytest.raises(VerificationError, match="no sum over lags"):
        verify_plan(replace(plan, tasks=wrong, kernels=()))
