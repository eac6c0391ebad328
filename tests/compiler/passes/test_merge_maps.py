"""Values along the same axes in one kernel: which may go together, and which have to wait."""

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.plan import Plan
from mixc.ir.targets import AVX2

TWO = """
mixer: two
inputs: {x: [B, T, D], y: [B, T, D]}
stages:
  - map: {p: x * y}
  - map: {q: x - y}
  - map: {r: "sum(x, D)"}
outputs: {p: [B, T, D], q: [T, B, D], r: [B, T]}
"""

WAITING = """
mixer: waiting
inputs: {x: [B, T, D]}
stages:
  - map: {p: "cumsum(x, T)"}
  - map: {q: "p * x"}
outputs: {p: [B, T, D], q: [B, T, D]}
"""


def writes(plan: Plan) -> list[set[str]]:
    return [{*kernel.writes} for kernel in plan.kernels]


def test_values_of_the_same_places_are_stored_by_one_kernel() -> None:
    assert writes(lower(load_text(TWO), {"D": 64})) == [{"p", "q"}, {"r"}]


def test_a_cpu_keeps_them_apart() -> None:
    plan = lower(load_text(TWO), {"D": 64}, "float32", target=AVX2)
    assert writes(plan) == [{"p"}, {"q"}, {"r"}]


def test_what_waits_for_another_kernel_comes_after_it() -> None:
    kernels = lower(load_text(WAITING), {"D": 64}, "float32").kernels
    assert kernels[-1].writes == ("q",)
    assert {*kernels[0].writes} <= {*kernels[-1].reads}
