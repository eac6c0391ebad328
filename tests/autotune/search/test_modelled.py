"""Defaults against the model of a kernel's time on a Hopper: machine code is read, nothing runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mixc.autotune.search.kernels import gpu_space
from mixc.autotune.search.modelled import configured, modelled
from mixc.autotune.search.trial import Problem
from mixc.backends.triton.cross_compile import CompileWorkers
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.targets import parse_target

HOPPER = parse_target("cuda:90")
FEATURES = {"D": 64, "E": 64}
SHAPE = {"B": 1, "T": 8192, "H": 96, "G": 96, **FEATURES}


@pytest.fixture(scope="module")
def workers() -> Iterator[CompileWorkers]:
    with CompileWorkers(count=1) as made:
        yield made


@pytest.mark.parametrize("name", ["gated_delta", "gla"])
def test_the_default_number_of_kernels_is_the_fastest(name: str, workers: CompileWorkers) -> None:
    mixer = load_file(find_spec(name))
    times_us = {}
    for kernels in (0, 1, 2, 3):
        plan = lower(mixer, FEATURES, "bf16", target=HOPPER, chunk_kernels=kernels)
        times_us[kernels] = modelled(plan, HOPPER, SHAPE, None, workers).time_us
    assert times_us[0] is not None
    assert times_us.pop(0) == min(times_us.values()), times_us


def test_how_many_kernels_is_a_knob_of_the_search() -> None:
    mixer = load_file(find_spec("gated_delta"))
    space = gpu_space(mixer, SHAPE, "bfloat16", "cuda:90")
    (knob,) = (knob for knob in space.knobs if knob.name == "chunk_kernels")
    assert (knob.choices, knob.default) == ((1, 2, 3), 2)
    problem = Problem(mixer, "bfloat16", "cuda", SHAPE, SHAPE)
    for count in knob.choices:
        asked = {"chunk_kernels": count, "gated_delta_o.num_stages": 4}
        plan = configured(problem, HOPPER, asked)
        assert len(plan.kernels) == count
        walk = next(k for k in plan.kernels if k.program.name == "gated_delta_o")
        assert dict(walk.program.launch)["num_stages"] == 4
    rows = {**SHAPE, "I": 64, "J": 64}
    attention = gpu_space(load_file(find_spec("causal")), rows, "bf16", "cuda:90")
    assert "chunk_kernels" not in attention.default
