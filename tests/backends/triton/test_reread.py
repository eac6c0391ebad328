"""Weights that the registers can't hold through a loop are read for each of its rows."""

from __future__ import annotations

import pytest

from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.reread import reread_weights
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.plan import Plan
from mixc.ir.tile import For, Load
from mixc.ir.verify_plan import verify_program


def cell(size: int) -> Plan:
    mixer = load_file(find_spec("lstm"))
    return lower(mixer, {"D": size, "P": size, "K": 4}, "bfloat16")


def weights(ops: tuple[object, ...]) -> int:
    return sum(isinstance(op, Load) and op.out.axes == {"D", "P"} for op in ops)


@pytest.mark.parametrize(("size", "outside", "inside"), [(64, 4, 0), (128, 0, 4)])
def test_four_gates_of_128_are_read_again(size: int, outside: int, inside: int) -> None:
    program = reread_weights(cell(size).kernels[-1].program)
    verify_program(program)
    (loop,) = [op for op in program.body if isinstance(op, For)]
    assert (weights(program.body), weights(loop.body)) == (outside, inside)


def test_rows_are_pipelined_and_weights_are_not() -> None:
    assert "in tl.range(0, T, num_stages=2):" in emit_module(cell(64))
    assert "in range(0, T):" in emit_module(cell(128))
