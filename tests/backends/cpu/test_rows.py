"""Loops that take several rows a turn mean what loops of single rows mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mixc.autotune.checking.sampling import default_sizes, sample_inputs
from mixc.backends.cpu.rows import several_rows
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.plan import Plan
from mixc.ir.tile import For
from mixc.ir.verify_plan import verify_plan


def plan_of(spec: str) -> Plan:
    return lower(load_file(find_spec(spec)), {"D": 5, "E": 3}, "float32", recurrence="loop")


def with_rows(plan: Plan, times: int) -> Plan:
    kernels = [replace(k, program=several_rows(k.program, times)) for k in plan.kernels]
    return replace(plan, kernels=tuple(kernels))


def steps(plan: Plan) -> list[str | int]:
    return [op.step for k in plan.kernels for op in k.program.body if isinstance(op, For)]


@pytest.mark.parametrize("length", [0, 1, 4, 7])
def test_results_are_the_same(length: int) -> None:
    plan = plan_of("gla")
    made = with_rows(plan, 4)
    assert steps(made) == [4, 1]
    verify_plan(made)
    sizes = {**default_sizes(plan.mixer, "standard"), "T": length, "D": 5, "E": 3}
    tensors = sample_inputs(plan.mixer, sizes, torch.float64)
    wanted, found = (run_plan(p, tensors, sizes) for p in (plan, made))
    for name, result in wanted.items():
        torch.testing.assert_close(found[name], result)


@pytest.mark.parametrize("spec", ["delta", "lstm", "hgrn"])
def test_rows_that_wait_for_sums_stay_single(spec: str) -> None:
    assert steps(with_rows(plan_of(spec), 4)) == [1]
