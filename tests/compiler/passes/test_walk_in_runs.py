"""Walks in runs: where a choice of rows picks none, a program goes without what it multiplies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.pipeline import lower
from mixc.ir.binding import bind_sizes
from mixc.ir.mixer import Mixer
from mixc.ir.roles import feature_dims
from mixc.ir.targets import AVX512, EVERY_GPU, AnyTarget, parse_target
from mixc.ir.tile import Dot, For, Load, Program, Store, all_ops

from ..schedules.test_recurrences import with_block

HOPPER = parse_target("cuda:90")
SLOTS = """
mixer: slots
inputs:
  q: [B, T, D]
  k: [B, T, D]
  w: {dims: [B, T, D], unit: true}
  a: [B, T]
  S0: {dims: [B, D, N, P], default: 0}
dims: {N: (T + 15) // 16, P: 16}
recurrence:
  over: T
  state: {S: [D, P]}
  initial: {S: S0}
  DIRECTION
  step:
    - S = DECAY * S - w * sum(w * S, D)
    - S = S + where(CHOICE, k, 0)
    - o = sum(q * S, D)
outputs: {o: [B, T, N, P], S: [B, D, N, P]}
"""
CHOICES = {
    "its own row": "n * 16 + p == t",
    "a few rows": "n * 16 + p <= t and t < n * 16 + p + 3",
    "every other row": "2 * (n * 16 + p) == t",
    "from a row on": "t >= n * 16 + p",
    "up to a row": "t < n * 16 + p",
    "groups of rows": "n * 16 + p == t // 2",
}


def slots(choice: str, decay: str = "1", more: str = "", start: bool = False) -> Mixer:
    """States whose columns are rows that a choice picks."""
    text = SLOTS.replace("CHOICE", choice).replace("DECAY", decay)
    text = text.replace("  DIRECTION\n", f"  {more}\n" if more else "")
    if not start:
        text = text.replace("  S0: {dims: [B, D, N, P], default: 0}\n", "")
        text = text.replace("  initial: {S: S0}\n", "")
    return load_text(text)


def inputs_of(mixer: Mixer, length: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    sizes = {"B": 2, "T": length, "D": 5, "N": (length + 15) // 16, "P": 16}
    made = {}
    for one in mixer.inputs:
        shape = [sizes[axis[0]] for axis in one.layout]
        made[one.name] = torch.randn(shape, generator=random, dtype=torch.float64)
    made["a"] = torch.sigmoid(made["a"])
    made["w"] = torch.nn.functional.normalize(made["w"], dim=-1)
    return made


def check(
    mixer: Mixer, length: int, dtype: str, target: AnyTarget = HOPPER, recurrence: str = "chunk"
) -> None:
    """The plan's programs, interpreted in float64, give what the reference gives."""
    inputs = inputs_of(mixer, length)
    sizes = bind_sizes(mixer, {name: tuple(x.shape) for name, x in inputs.items()})
    fixed = {dim: sizes[dim] for dim in feature_dims(mixer)}
    plan = lower(mixer, fixed, dtype, target=target, recurrence=recurrence)
    assert any(kernel.schedule == recurrence for kernel in plan.kernels)
    made = run_plan(with_block(plan, "T", 16), inputs, sizes)
    for name, value in run(mixer, inputs).items():
        torch.testing.assert_close(made[name], value, rtol=1e-10, atol=1e-10)


def loops_of(program: Program) -> list[For]:
    return [op for op in program.body if isinstance(op, For)]


@pytest.mark.parametrize("more", ["", "direction: backward"])
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_results_are_as_before(choice: str, more: str) -> None:
    for length in (0, 1, 16, 40, 70):
        check(slots(choice, "1", more), length, "bf16")
    check(slots(choice, "a", more, start=True), 70, "fp32", EVERY_GPU)


@pytest.mark.parametrize("more", ["", "direction: backward"])
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_results_are_as_before_row_by_row(choice: str, more: str) -> None:
    for length in (0, 1, 16, 40):
        check(slots(choice, "1", more), length, "fp32", AVX512, "loop")
    check(slots(choice, "a", more, start=True), 40, "fp32", AVX512, "loop")


def test_row_by_row_a_program_starts_at_the_first_row_of_its_columns() -> None:
    mixer = load_file(find_spec("path"))
    plan = lower(mixer, {"D": 64, "E": 64}, "fp32", recurrence="loop", target=AVX512)
    (walk,) = (k.program for k in plan.kernels if k.program.name == "path_read")
    before, own, after = loops_of(walk)
    assert [bool(loop.carried) for loop in (before, own, after)] == [False, True, True]
    loaded = [
        {op.buffer for op in loop.body if isinstance(op, Load)} for loop in (before, own, after)
    ]
    assert not loaded[0]
    assert loaded[1] - loaded[2] == {"k"}


def test_a_program_walks_the_rows_of_its_columns_and_those_after() -> None:
    plan = lower(load_file(find_spec("path")), {"D": 64, "E": 64}, "bf16", target=HOPPER)
    (walk,) = (k.program for k in plan.kernels if k.program.name == "path_read")
    before, own, after = loops_of(walk)
    assert not before.carried
    assert {type(op) for op in all_ops(before.body)}.isdisjoint({Dot, Load})
    assert any(isinstance(op, Store) for op in before.body)
    products = [[op for op in loop.body if isinstance(op, Dot)] for loop in (own, after)]
    assert [any(dot.masked for dot in of) for of in products] == [True, False]
    loaded = [{op.buffer for op in loop.body if isinstance(op, Load)} for loop in (own, after)]
    assert "k" in loaded[0]
    assert "k" not in loaded[1]


@pytest.mark.parametrize(("choice", "runs"), [("from a row on", 2), ("up to a row", 2)])
def test_one_bound_makes_two_runs(choice: str, runs: int) -> None:
    plan = lower(slots(CHOICES[choice]), {"D": 5}, "bf16", target=HOPPER)
    (walk,) = (k.program for k in plan.kernels if any(op.carried for op in loops_of(k.program)))
    assert len(loops_of(walk)) == runs


def test_a_state_that_starts_as_something_is_carried_from_the_first_row() -> None:
    plan = lower(slots("n * 16 + p == t", start=True), {"D": 5}, "bf16", target=HOPPER)
    (walk,) = (k.program for k in plan.kernels if any(op.carried for op in loops_of(k.program)))
    assert len(loops_of(walk)) == 3
    assert all(loop.carried for loop in loops_of(walk))


def test_a_choice_that_no_bound_follows_from_is_looked_at_in_every_row() -> None:
    plan = lower(slots("(n * 16 + p) % 3 == t % 3"), {"D": 5}, "bf16", target=HOPPER)
    (walk,) = (k.program for k in plan.kernels if any(op.carried for op in loops_of(k.program)))
    assert len(loops_of(walk)) == 1
