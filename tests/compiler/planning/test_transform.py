"""Fourier sums are tasks: one transform for both parts of a value, one for several axes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.data_text import read_data, write_data
from mixc.ir.errors import VerificationError
from mixc.ir.plan import Plan
from mixc.ir.targets import AVX2, EVERY_GPU, AnyTarget
from mixc.ir.task import TransformTask
from mixc.ir.transform import Operand, Transform, Turn
from mixc.ir.verify_plan import verify_plan

SPECS = {path.stem: path for path in library()}
SPEC = """
mixer: sums
inputs: {{x: [B, T, C], w: [B, T, C]}}
dims: {{S: T, E: C}}
define:
  turn(a, b, n): 2 * pi * (a * b % n) / n
  c(f): cos(turn(f, s, T))
  s_(f): sin(turn(f, s, T))
map:
  y: "{y}"
  z: "{z}"
outputs: {{y: [B, S, C], z: [B, S, C]}}
"""


def planned(y: str, z: str = "sum(x, T) * s", target: AnyTarget = AVX2, **knobs: int) -> Plan:
    mixer = load_text(SPEC.format(y=y, z=z), "sums.yaml")
    return lower(mixer, {}, "float32", target=target, **knobs)  # type: ignore[arg-type]


def transforms(plan: Plan) -> list[Transform]:
    return [task.transform for task in plan.tasks if isinstance(task, TransformTask)]


@pytest.mark.parametrize("target", [AVX2, EVERY_GPU])
def test_both_parts_of_a_value_are_one_transform(target: AnyTarget) -> None:
    (one,) = transforms(planned("sum(x * c(t), T)", "-sum(x * s_(t), T)", target))
    assert (one.real.buffer, one.imaginary, one.turns) == ("x", None, (Turn("T", "S", 1),))
    assert one.parts == ("y", "z_im")


@pytest.mark.parametrize(
    ("y", "z", "sign"),
    [
        ("sum(x * c(t) + w * s_(t), T)", "sum(w * c(t) - x * s_(t), T)", -1),
        ("sum(x * c(t), T) - sum(w * s_(t), T)", "sum(w * c(t), T) + sum(x * s_(t), T)", 1),
    ],
)
def test_two_values_are_one_complex_one(y: str, z: str, sign: int) -> None:
    (one,) = transforms(planned(y, z))
    assert {operand.buffer for operand in one.operands} == {"x", "w"}
    assert {*one.parts} == {"y", "z"}
    # which of the two is the real one decides the sign
    assert one.turns == (Turn("T", "S", sign if one.real.buffer == "x" else -sign),)


def test_sums_of_one_wave_are_added_before_they_are_transformed() -> None:
    plan = planned("sum(x * c(t), T) + sum(w * c(t), T)")
    (one,) = transforms(plan)
    assert one.real.buffer not in {"x", "w"}
    assert one.parts == ("y", None)


def test_two_axes_are_one_call_and_nothing_is_between() -> None:
    plan = lower(load_file(SPECS["fnet"]), {}, "bfloat16")
    (task,) = plan.tasks
    assert isinstance(task, TransformTask)
    assert {(t.over, t.row, t.sign) for t in task.transform.turns} == {
        ("C", "E", 1),
        ("T", "S", 1),
    }
    assert task.name == "fnet_y"
    assert not [buffer for buffer in plan.buffers if buffer.role == "temporary"]


def test_its_derivative_is_one_too() -> None:
    plan = lower(differentiate(load_file(SPECS["fnet"])).backward, {}, "bfloat16")
    (task,) = plan.tasks
    assert isinstance(task, TransformTask)
    assert len({turn.sign for turn in task.transform.turns}) == 1


def test_what_others_read_as_well_stays_between() -> None:
    text = """
mixer: both
inputs: {x: [B, T, C]}
dims: {S: T}
map:
  z: "dft(x, C=E)"
  y: "real(dft(z, T=S))"
  re: real(z)
outputs: {y: [B, S, E], re: [B, T, E]}
"""
    found = transforms(lower(load_text(text, "both.yaml"), {}, "float32"))
    assert [len(one.turns) for one in found] == [1, 1]
    again = transforms(lower(load_text(text.replace(", re: [B, T, E]}", "}")), {}, "float32"))
    assert [len(one.turns) for one in again] == [2]


def test_few_positions_stay_sums() -> None:
    mixer = load_file(SPECS["fnet"])
    short = lower(mixer, {"C": 8}, "float32")
    assert [len(one.turns) for one in transforms(short)] == [1]
    assert "y: a Fourier sum over C, term by term: 8 positions are too few" in short.findings
    whole = lower(mixer, {"C": 8}, "float32", fft_terms=1)
    assert [len(one.turns) for one in transforms(whole)] == [2]
    assert not transforms(lower(mixer, {}, "float32", fft_terms=1 << 30))


@pytest.mark.parametrize(
    ("y", "signs"),
    [
        ("sum(x * w[T=(s - t) % T], T)", (1, 1)),
        ("sum(x * w[T=(t - s) % T], T)", (1, -1)),
        ("sum(x * (w * 2)[T=(t + s) % T] * s, T)", (1, 1)),
    ],
)
def test_a_sum_around_the_end_is_a_product_of_transforms(y: str, signs: tuple[int, int]) -> None:
    one, other, back = transforms(planned(y))
    assert [len(one.results), len(other.results), len(back.operands)] == [2, 2, 2]
    assert (back.turns[0].over, back.turns[0].row, one.turns[0].sign) == ("T", "S", signs[0])
    assert back.turns[0].sign == signs[1]


@pytest.mark.parametrize(
    "y",
    [
        "sum(x * w[T=(s - t + 1) % T], T)",
        "sum(x * w[T=(s - t) % (T + 1)], T)",
        "sum(x * w[T=(s - 2 * t) % T], T)",
        "sum(x[T=(s - t) % T], T)",
    ],
)
def test_other_sums_around_an_end_are_none(y: str) -> None:
    assert not transforms(planned(y))


@pytest.mark.parametrize(
    "y",
    [
        "sum(x * c(t), T, where=t > s)",
        "sum(x * cos(pi * t * s / T), T)",
        "sum(c(t) * c(t) * x, T)",
        "max(x * c(t), T)",
    ],
)
def test_what_is_none(y: str) -> None:
    assert not transforms(planned(y))


def test_the_text_reads_back() -> None:
    plan = planned("sum(x * c(t) + w * s_(t), T)")
    assert read_data(write_data(plan)) == plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"real": Operand("x", ("B", "T"))}, "transforms x along B, T"),
        ({"turns": (Turn("S", "S", 1),)}, "sums over S of B, T, C"),
        ({"turns": (Turn("T", "C", 1),)}, "has the rows C beside B, T, C"),
        ({"turns": (Turn("T", "S", 2),)}, "has no result, or no sign"),
        ({"turns": (Turn("T", "T", 1),)}, "fills y, which has other axes"),
    ],
)
def test_a_plan_that_is_not_sound_is_refused(change: dict[str, object], message: str) -> None:
    plan = planned("sum(x * c(t), T)", "x[T=s] * w[T=s]")
    tasks = [
        replace(task, transform=replace(task.transform, **change))  # type: ignore[arg-type]
        if isinstance(task, TransformTask)
        else task
        for task in plan.tasks
    ]
    with pytest.raises(VerificationError, match=message):
        verify_plan(replace(plan, tasks=tuple(tasks), kernels=()))
