"""Long sums over lags by a kernel of their own, by products or by a fast Fourier transform: the
numbers of direct sums, at every length and in both directions, forward and backward; what is not
finite stays where the sums have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from mixc.autotune.checking.sampling import sample_inputs
from mixc.autotune.checking.tolerances import error_limit, error_of
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.expression import Kind, Literal
from mixc.ir.mixer import Mixer
from mixc.ir.task import ConvolutionTask

SPECS = {path.stem: path for path in library()}
SIZES: Mapping[str, Mapping[str, int]] = {
    "long_conv": {"B": 2, "T": 137, "C": 20, "L": 70},
    "hyena": {"B": 2, "T": 90, "C": 5, "P": 3, "K": 3, "R": 3, "M": 6, "N": 6, "L": 1024},
    "m2": {"B": 2, "T": 90, "P": 3, "C": 20, "K": 3, "L": 77},
    "sgconv": {"B": 2, "T": 90, "C": 20, "S": 3, "K": 16, "L": 64},
    "s4d_conv": {"B": 2, "T": 90, "C": 20, "N": 4, "L": 90},
}
PLAIN = """
mixer: plain
inputs: {x: [B, T, C], k: [C, L]}
convolution: {over: T, lag: L, kernel: k, signal: x, output: y}
outputs: {y: [B, T, C]}
"""


@cache
def plain() -> Mixer:
    return load_text(PLAIN, "plain.yaml")


# Products that a number of a transform may take: none, as it is, any.
WAYS = (("-DMIXC_OF_A_TRANSFORM=0",), (), ("-DMIXC_OF_A_TRANSFORM=1e9",))


@cache
def by_transform(mixer: Mixer, lags: int = 1, way: tuple[str, ...] = WAYS[0]) -> CpuRunner:
    return CpuRunner(mixer, lower, {"fft_lags": lags}, flags=("-O1", *way))


def compare(mixer: Mixer, inputs: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    wanted, usual = run(mixer, inputs), run(mixer, inputs, dtype=dtype)
    for way in (WAYS[0], WAYS[2]):
        found = by_transform(mixer, way=way)(inputs)
        for name, value in wanted.items():
            limit = error_limit(dtype, error_of(usual[name], value))
            assert error_of(found[name], value) <= limit, (name, way)


def convolutions(mixer: Mixer, sizes: Mapping[str, int]) -> int:
    plan = by_transform(mixer)._plan(mixer, sizes, torch.float32)
    return sum(isinstance(task, ConvolutionTask) for task in plan.tasks)


@pytest.mark.parametrize(
    ("spec", "count", "dtype"),
    [("long_conv", 1, torch.float16), ("m2", 5, torch.float32), ("hyena", 2, torch.bfloat16)],
)
def test_the_numbers_are_those_of_direct_sums(spec: str, count: int, dtype: torch.dtype) -> None:
    mixer = load_file(SPECS[spec])
    assert convolutions(mixer, SIZES[spec]) == count
    compare(mixer, sample_inputs(mixer, SIZES[spec], dtype, seed=1), dtype)


@pytest.mark.parametrize(("spec", "count"), [("long_conv", 3), ("s4d_conv", 2)])
def test_gradients_are_sums_over_lags_too(spec: str, count: int) -> None:
    mixer = load_file(SPECS[spec])
    passes = differentiate(mixer, tuple(i.name for i in mixer.inputs if i.kind is Kind.REAL))
    inputs = sample_inputs(passes.backward, SIZES[spec], torch.float32, seed=1)
    made = run(passes.forward, {i.name: inputs[i.name] for i in passes.forward.inputs})
    inputs |= {name: made[name].float() for name in passes.kept}
    assert convolutions(passes.backward, SIZES[spec]) == count
    compare(passes.backward, inputs, torch.float32)


@pytest.mark.parametrize("lengths", [(1, 1), (1, 90), (90, 1), (64, 64), (90, 500), (500, 90)])
@pytest.mark.parametrize("channels", [1, 37])
def test_every_length(lengths: tuple[int, int], channels: int) -> None:
    sizes = {"B": 2, "T": lengths[0], "L": lengths[1], "C": channels}
    compare(plain(), sample_inputs(plain(), sizes, torch.float32, seed=2), torch.float32)


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_param_that_says_how_far_lags_are_apart(dilation: int) -> None:
    """The taps of short_conv, counted from the other end; two apart they are no sum over lags."""
    mixer = load_file(SPECS["short_conv"])
    params = tuple(
        replace(p, value=Literal(dilation)) if p.name == "dilation" else p for p in mixer.params
    )
    mixer = replace(mixer, params=params)
    sizes = {"B": 2, "T": 2100, "C": 35, "K": 40}
    assert convolutions(mixer, sizes) == (dilation == 1)
    compare(mixer, sample_inputs(mixer, sizes, torch.float32, seed=1), torch.float32)


def test_an_empty_batch_and_strided_inputs() -> None:
    assert by_transform(plain())({"x": torch.zeros(0, 90, 4), "k": torch.ones(4, 90)})[
        "y"
    ].shape == (0, 90, 4)
    x, k = torch.randn(2, 5, 200).transpose(1, 2), torch.randn(170, 5).T
    compare(plain(), {"x": x, "k": k}, torch.float32)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_what_is_not_finite_stays_where_direct_sums_have_it(
    value: float, way: tuple[str, ...]
) -> None:
    inputs = sample_inputs(plain(), {"B": 2, "T": 200, "L": 200, "C": 20}, torch.float32, seed=3)
    inputs["x"][1, 150, 3] = value
    found = by_transform(plain(), way=way)(inputs)["y"]
    direct = by_transform(plain(), 1 << 30)(inputs)["y"]
    torch.testing.assert_close(found, direct, equal_nan=True, rtol=1e-4, atol=1e-4)
    assert found[0].isfinite().all()
    assert found[1, :150].isfinite().all()


def test_a_tile_program_says_the_same() -> None:
    sizes = {"B": 2, "T": 9, "L": 7, "C": 3}
    inputs = sample_inputs(plain(), sizes, torch.float32, seed=4)
    plan = by_transform(plain())._plan(plain(), sizes, torch.float32)
    found, wanted = run_plan(plan, inputs, sizes), run(plain(), inputs)
    torch.testing.assert_close(found["y"], wanted["y"])


def test_few_lags_are_summed_where_they_are_read() -> None:
    mixer, sizes = load_file(SPECS["hyena"]), SIZES["hyena"]
    plan = CpuRunner(mixer, lower)._plan(mixer, sizes, torch.float32)
    names = [task.name for task in plan.tasks if isinstance(task, ConvolutionTask)]
    assert names == ["hyena_mixed"]
    assert "z: a sum over the lags K, sum by sum: 3 positions of K are fewer than 32" in (
        plan.findings
    )
