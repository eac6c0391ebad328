"""How often the kernels of a loop on the host are launched, and what a call takes then."""

from __future__ import annotations

import pytest

from mixc.autotune.gpu_model.expectation import Expectation, all_sizes, rows_of
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower


@pytest.mark.parametrize("rounds", [0, 6])
def test_kernels_of_a_row_are_launched_for_each(rounds: int) -> None:
    plan = lower(load_file(find_spec("set2set")), {})
    sizes = {"B": 2, "J": 100, "R": rounds, "D": 64, "P": 64, "K": 4}
    turns = rows_of(plan, all_sizes(plan, sizes))
    names = [kernel.program.name for kernel in plan.kernels]
    assert [turns.get(name, 1) for name in names] == [1, *[rounds] * (len(names) - 2), 1]


def test_a_call_takes_the_time_of_all_launches() -> None:
    one = Expectation("walk", "cuda:90", 2.5, "latency", launches=4)
    assert one.all_us == 10
    assert one.as_dict()["expected_us"] == 2.5
    assert one.as_dict()["launches"] == 4
