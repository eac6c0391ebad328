"""Running sums that start from what is added to all of their rows."""

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.plan import Plan
from mixc.ir.task import RunningSumTask

SPEC = """
mixer: started
inputs: {x: [B, T, C], y: [B, T, C], S: [B, C, E], P: [B, C, E]}
stages:
  - map: {g: "cumsum(x, T, reverse=true) - y + %s"}
outputs: {g: [B, T, C]}
"""


def planned(added: str) -> Plan:
    return lower(load_text(SPEC % added), {"C": 64, "E": 64}, "float32")


def started(plan: Plan) -> list[bool]:
    return [task.start is not None for task in plan.tasks if isinstance(task, RunningSumTask)]


def test_a_sum_starts_from_a_reduction_that_all_rows_share() -> None:
    plan = planned("sum(S * P, E)")
    assert started(plan) == [True]
    rest = next(kernel for kernel in plan.kernels if "g" in kernel.writes)
    assert not {"S", "P"} & {*rest.reads}


def test_a_number_to_look_up_is_added_where_it_is_read() -> None:
    assert started(planned("S[E=0]")) == [False]


def test_a_reduction_of_the_row_is_no_start() -> None:
    assert started(planned("sum(S * P * y, E)")) == [False]
