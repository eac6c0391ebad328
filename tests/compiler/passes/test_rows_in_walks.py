"""What is made of a walk's rows is made in the walk: fewer tensors, the same numbers."""

from __future__ import annotations

import pytest
import torch

from mixc.autotune.checking.sampling import sample_inputs
from mixc.autotune.checking.tolerances import error_limit, error_of
from mixc.backends.cpu.rows import several_rows
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.expression import Kind
from mixc.ir.mixer import Mixer
from mixc.ir.plan import Plan
from mixc.ir.recurrence_tasks import LoopTask
from mixc.ir.targets import EVERY_GPU
from mixc.ir.task import RunningSumTask
from mixc.ir.tile import For

SIZES = {"B": 2, "T": 21, "H": 4, "G": 2, "D": 16, "E": 16, "P": 16, "N": 16}
GATED = """
mixer: gated
inputs: {k: [B, T, H, D], v: [B, T, H, E], q: [B, T, H, D], z: [B, T, H, E], w: [H]}
stages:
  - recurrence:
      over: T
      state: {S: [D, E]}
      step:
        - S = 0.9 * S + k * v
        - y = sum(q * S, D)
  - map:
      o: VALUE
outputs: {o: [B, T, H, E]}
"""


def gated(value: str) -> Mixer:
    """A recurrence, and a map of what it makes."""
    return load_text(GATED.replace("VALUE", value), "gated.yaml")


def backward(spec: str) -> Mixer:
    mixer = load_file(find_spec(spec))
    return differentiate(mixer, tuple(i.name for i in mixer.inputs if i.kind is Kind.REAL)).backward


def plan_of(mixer: Mixer) -> Plan:
    return CpuRunner(mixer, lower)._plan(mixer, SIZES, torch.float32)


def walk_that_makes(plan: Plan, name: str) -> LoopTask:
    return next(t for t in plan.tasks if isinstance(t, LoopTask) and name in t.writes)


def close_to_reference(mixer: Mixer, plan: Plan) -> None:
    """The plan in the interpreter, and the mixer's kernels, are as near as plain float32."""
    inputs = sample_inputs(mixer, SIZES, torch.float32, seed=3)
    wanted, plain = run(mixer, inputs), run(mixer, inputs, dtype=torch.float32)
    for found in (run_plan(plan, inputs, SIZES), CpuRunner(mixer, lower)(inputs)):
        for name, value in wanted.items():
            limit = error_limit(torch.float32, error_of(plain[name], value))
            assert error_of(found[name], value) <= limit, name


@pytest.mark.parametrize("spec", ["simple_gla", "mamba2"])
def test_row_sums_of_a_decay_are_made_where_the_rows_are(spec: str) -> None:
    mixer = backward(spec)
    plan = plan_of(mixer)
    sums = [b.name for b in plan.buffers if "_row" in b.name]
    assert len(sums) >= 2
    walk = walk_that_makes(plan, sums[0])
    assert {*sums} <= {*walk.writes}
    assert walk.reverse
    close_to_reference(mixer, plan)


def test_a_running_sum_that_goes_the_walks_way_is_a_state_of_it() -> None:
    mixer = backward("gla")
    plan = plan_of(mixer)
    assert not any(isinstance(task, RunningSumTask) for task in plan.tasks)
    assert "d_k" in walk_that_makes(plan, "d_g").writes
    kernel = next(k for k in plan.kernels if "d_g" in k.program.buffers)
    body = several_rows(kernel.program, 2).body  # it waits for sums, the matrix does not
    assert [op.step for op in body if isinstance(op, For)] == [2, 1]
    close_to_reference(mixer, plan)


@pytest.mark.parametrize("options", ["", ", exclusive=true"])
def test_a_running_sum_keeps_what_rounding_takes(options: str) -> None:
    mixer = gated(f"cumsum(y + z, T{options})")
    plan = plan_of(mixer)
    assert walk_that_makes(plan, "o")
    inputs = sample_inputs(mixer, SIZES, torch.float32, seed=3)
    inputs["k"].zero_()
    inputs["z"].fill_(1.0)
    inputs["z"][:, 0], inputs["z"][:, -2] = 2.0**25, -(2.0**25)
    found = CpuRunner(mixer, lower)(inputs)["o"]
    torch.testing.assert_close(found, run(mixer, inputs)["o"].float(), rtol=0, atol=0)
    assert found[0, -1, 0, 0] == SIZES["T"] - (3 if options else 2)


@pytest.mark.parametrize("value", ["cumsum(y, T, reverse=true)", "cumsum(sum(y, E) * w, T) * z"])
def test_a_running_sum_stays_that_goes_back_or_has_no_channels(value: str) -> None:
    plan = plan_of(gated(value))
    assert any(isinstance(task, RunningSumTask) for task in plan.tasks)


def test_a_map_of_rows_is_a_result_of_the_walk() -> None:
    plan = plan_of(gated("y * silu(z) + w"))
    (walk,) = plan.tasks
    assert isinstance(walk, LoopTask)
    assert walk.writes == ("o",)
    assert "y" not in {buffer.name for buffer in plan.buffers}


def test_a_copy_of_rows_that_others_read_is_what_the_walk_stores() -> None:
    text = GATED.replace("VALUE", "y\n      s: sum(y * z, T)")
    text = text.replace("o: [B, T, H, E]}", "o: [B, T, H, E], s: [B, H, E]}")
    mixer = load_text(text, "copied.yaml")
    plan = plan_of(mixer)
    assert walk_that_makes(plan, "o").writes == ("o",)
    assert "y" not in {buffer.name for buffer in plan.buffers}
    assert [task.writes for task in plan.tasks] == [("o",), ("s",)]
    close_to_reference(mixer, plan)


@pytest.mark.parametrize("value", ["y - mean(y, T)", "y[T=t - 1] * z", "y / (1 + norm(y, E))"])
def test_what_takes_more_than_a_row_or_spares_none_stays(value: str) -> None:
    plan = plan_of(gated(value))
    assert walk_that_makes(plan, "y")
    assert len(plan.tasks) > 1


def test_gpus_keep_their_kernels() -> None:
    mixer = backward("simple_gla")
    plan = lower(mixer, {}, "float32", target=EVERY_GPU, recurrence="loop")
    assert not any("_row" in buffer.name for buffer in plan.buffers)
