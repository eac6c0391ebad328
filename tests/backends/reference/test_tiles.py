"""The interpreter of tile programs finds what a program may not do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.errors import VerificationError
from mixc.ir.plan import Plan
from mixc.ir.tile import Constant, DType, Elementwise, Load, Op, Range, Store, Value

SPEC = """
mixer: m
inputs: {x: [T, D], id: {dims: [T], dtype: int32, sorted: true}}
stages:
  - map: {y: 'sum(x, D) + id'}
outputs: {y: [T]}
"""


def plan() -> Plan:
    made = lower(load_text(SPEC), {"D": 5}, "float32")
    (kernel,) = made.kernels
    tiles = tuple(t if t.whole else replace(t, block=4) for t in kernel.program.tiles)
    return replace(made, kernels=(replace(kernel, program=replace(kernel.program, tiles=tiles)),))


def changed(kind: type[Op], **fields: object) -> Plan:
    """The plan with fields of every op of a kind replaced."""
    made = plan()
    (kernel,) = made.kernels
    body = tuple(
        replace(op, **fields) if isinstance(op, kind) else op  # type: ignore[arg-type]
        for op in kernel.program.body
    )
    return replace(made, kernels=(replace(kernel, program=replace(kernel.program, body=body)),))


def execute(given: Plan, length: int = 6) -> Tensor:
    tensors = {"x": torch.randn(length, 5), "id": torch.arange(length, dtype=torch.int32)}
    return run_plan(given, tensors, {"T": length, "D": 5})["y"]


@pytest.mark.parametrize("length", [0, 1, 4, 6])
def test_a_sound_plan_gives_what_the_reference_does(length: int) -> None:
    x = torch.randn(length, 5, dtype=torch.float64)
    tensors = {"x": x, "id": torch.arange(length, dtype=torch.int32)}
    found = run_plan(plan(), tensors, {"T": length, "D": 5})["y"]
    torch.testing.assert_close(found, run(load_text(SPEC), tensors)["y"])


def test_reals_are_of_the_type_asked_for() -> None:
    tensors = {"x": torch.ones(2, 5), "id": torch.zeros(2, dtype=torch.int32)}
    assert (
        run_plan(plan(), tensors, {"T": 2, "D": 5}, dtype=torch.float32)["y"].dtype == torch.float32
    )


def test_reads_outside_a_buffer() -> None:
    message = r"m_y at t_start = \d: \w+ reads x outside: (T = 6 with 6|D = 5 with 5) positions"
    with pytest.raises(VerificationError, match=message):
        execute(changed(Load, mask=None))


def test_writes_outside_a_buffer() -> None:
    with pytest.raises(VerificationError, match=r"goes to y outside: T = 6 with 6 positions"):
        execute(changed(Store, mask=None))


def test_an_element_is_written_once() -> None:
    ranges = [op for op in plan().kernels[0].program.body if isinstance(op, Range) and op.start]
    assert len(ranges) == 1
    with pytest.raises(VerificationError, match=r"goes to elements of y that have a value"):
        execute(changed(Range, start=None), length=20)


def test_every_output_is_written() -> None:
    never = Value("never", DType.BOOL, frozenset("T"))
    position = next(op.out for op in plan().kernels[0].program.body if isinstance(op, Range))
    made = changed(Store, mask=never)
    (kernel,) = made.kernels
    *rest, store = kernel.program.body
    body = (*rest, Elementwise(never, "lt", (position, position)), store)
    program = replace(kernel.program, body=body)
    with pytest.raises(VerificationError, match="no kernel writes some elements of y"):
        execute(replace(made, kernels=(replace(kernel, program=program),)))


def test_what_nobody_wrote_is_not_read() -> None:
    text = SPEC.replace("map: {y: 'sum(x, D) + id'}", "map: {c: 'cumsum(x, T)', y: 'sum(c, D)'}")
    made = lower(load_text(text), {"D": 5}, "float32")
    assert len(made.kernels) == 2
    backwards = replace(made, kernels=made.kernels[::-1])
    with pytest.raises(VerificationError, match="reads elements of c that nobody wrote"):
        execute(backwards)
    assert bool(execute(made).isfinite().all())


def test_sizes_are_those_of_the_plan() -> None:
    with pytest.raises(VerificationError, match="m is made for D = 5, not 6"):
        run_plan(plan(), {}, {"T": 1, "D": 6})


def test_searched_tables_are_sorted() -> None:
    text = """
mixer: m
inputs: {x: [I, J], v: [J, E], id: {dims: [T], dtype: int32, sorted: true}}
dims: {I: T, J: T}
attention: {over: J, score: x, mask: "id[i] == id[j]", normalize: softmax, output: {o: v}}
outputs: {o: [I, E]}
"""
    made = lower(load_text(text), {"E": 4}, "float32")
    tensors = {
        "x": torch.randn(3, 3),
        "v": torch.randn(3, 4),
        "id": torch.tensor([2, 0, 1], dtype=torch.int32),
    }
    with pytest.raises(VerificationError, match="id is searched along T, and is not sorted"):
        run_plan(made, tensors, {"I": 3, "J": 3, "T": 3, "E": 4})


def test_integers_do_not_overflow() -> None:
    made = plan()
    (kernel,) = made.kernels
    large, twice = Value("large", DType.INT32), Value("twice", DType.INT32)
    more = (Constant(large, 2_000_000_000), Elementwise(twice, "add", (large, large)))
    program = replace(kernel.program, body=(*more, *kernel.program.body))
    with pytest.raises(VerificationError, match=r"twice: int32\[\] overflows: 4000000000"):
        execute(replace(made, kernels=(replace(kernel, program=program),)))


def test_every_value_can_be_watched() -> None:
    seen: list[tuple[int, str]] = []
    tensors = {"x": torch.ones(6, 5), "id": torch.zeros(6, dtype=torch.int32)}
    run_plan(
        plan(),
        tensors,
        {"T": 6, "D": 5},
        watch=lambda program, place, op, value: seen.append((place["t_start"], type(op).__name__)),
    )
    assert {start for start, _ in seen} == {0, 4}
    assert [name for start, name in seen if start == 0] == [name for start, name in seen if start]
