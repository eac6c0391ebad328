"""A state that rows read along both of its axes, in two walks: the same numbers, parts held."""

from __future__ import annotations

import pytest

from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.compiler.planning import recurrence
from mixc.ir.mixer import Mixer
from mixc.ir.optional import without_inputs
from mixc.ir.plan import Plan
from mixc.ir.recurrence_tasks import ChunkTask
from mixc.ir.targets import EVERY_GPU, parse_target

from ..schedules.test_recurrences import check

TEXT = """
mixer: both
inputs:
  q: [B, T, H, D]
  k: [B, T, G, D]
  v: [B, T, H, E]
  x: [B, T, H, E]
  g: [B, T, H]
  gd: [B, T, H, D]
  beta: [B, T, H]
  done: {dims: [B, T], dtype: bool}
  S0: [B, H, D, E]
heads: {G: H}
recurrence:
  over: T
  state: {S: [D, E]}
  initial: {S: S0}
  MORE
  step:
STEP
outputs: {o: [B, T, H, E], d: [B, T, H, D], S: [B, H, D, E]}
"""
STEPS = {
    "entries": "S = exp(gd) * S + k * v; o = sum(q * S, D); d = sum(x * S, E)",
    "read before": "d = sum(x * S, E); S = exp(gd) * S + k * v; o = sum(q * S, D)",
    "corrected": "c = sum(beta * k * S, D); S = exp(gd) * S + k * (v - c); o = sum(q * S, D); "
    "d = sum((x + c) * S, E)",
    "read within": "S = S + q * x; c = sum(k * S, D); d = sum((v + x) * S, E); o = c; "
    "S = exp(gd) * S - beta * k * c",
}
# One number of a row takes what is read along both axes, or a correction has no name.
TOGETHER = {
    "mixed": "S = exp(gd) * S + k * v; o = sum(q * S, D); d = q * sum(o, E) + sum(x * S, E)",
    "unnamed": "S = exp(gd) * S + k * (v - sum(k * S, D)); o = sum(q * S, D); d = sum(x * S, E)",
}


def both(step: str, more: str = "direction: forward") -> Mixer:
    lines = "".join(f"    - {line.strip()}\n" for line in step.split(";"))
    return load_text(TEXT.replace("STEP\n", lines).replace("MORE", more))


def walks(plan: Plan) -> list[ChunkTask]:
    return [task for task in plan.tasks if isinstance(task, ChunkTask)]


@pytest.fixture
def _any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every state were large."""
    monkeypatch.setattr(recurrence, "_SHARE", 1 << 20)


@pytest.mark.usefixtures("_any_size")
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_two_walks_give_the_same(step: str) -> None:
    for more in ("direction: forward", "direction: backward", "reset: done"):
        plan = check(both(step, more), 37, "chunk", dtype="bf16", chunk_kernels=1)
        assert len(walks(plan)) == 2
        assert {task.tiled for task in walks(plan)} == {("D",), ("E",)}
        assert [task.corrected for task in walks(plan)].count(True) <= 1


@pytest.mark.usefixtures("_any_size")
@pytest.mark.parametrize("step", TOGETHER.values(), ids=TOGETHER)
def test_what_takes_both_axes_stays_in_one_walk(step: str) -> None:
    plan = check(both(step), 19, "chunk", dtype="bf16", chunk_kernels=1)
    assert [task.tiled for task in walks(plan)] == [()]


def backward(name: str, target: str, size: int, dtype: str = "bf16") -> Plan:
    mixer = load_file(find_spec(name))
    mixer = without_inputs(mixer, [one.name for one in mixer.inputs if one.default is not None])
    sizes = {"D": size, "E": size}
    return lower(differentiate(mixer).backward, sizes, dtype, target=parse_target(target))


@pytest.mark.parametrize("target", ["cuda:80", "cuda:90"])
def test_a_program_holds_a_part_of_a_large_state(target: str) -> None:
    parts = [task.of for task in backward("gla", target, 128).tasks if hasattr(task, "of")]
    assert parts
    assert all(task.tiled for task in parts)


def test_small_states_and_short_turns_stay_in_one_walk() -> None:
    small, wide = backward("gla", "cuda:80", 16), backward("gla", "cuda:80", 128, "fp32")
    assert any(not task.of.tiled for task in small.tasks if hasattr(task, "of"))
    assert any(not task.tiled for task in walks(wide))
    # A scalar decay costs a Hopper little in a turn; on others a whole state has no room.
    assert any(not task.tiled for task in walks(backward("simple_gla", "cuda:90", 128)))
    assert all(task.tiled for task in walks(backward("simple_gla", "cuda:80", 128)))
    assert not EVERY_GPU.products_from_shared
