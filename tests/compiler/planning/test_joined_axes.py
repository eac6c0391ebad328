"""Steps that reduce over values end to end do so part by part, and hold no joined axis."""

from __future__ import annotations

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.tile import Dot, Elementwise, Program, all_ops

SPEC = """
mixer: memory
inputs: {{x: [B, T, P, D], ask: [M, D]{more}}}
recurrence:
  over: T
  state: {{mem: [M, D]}}
  step:
    - both = concat(U, mem, M, x, P)
    - mem = {line}
outputs: {{mem: [B, M, D]}}
"""
READ = "sum(softmax(sum(ask * both, D), U{where}) * both, U)"


def program(line: str, more: str = "") -> Program:
    sizes = {"D": 32, "M": 16, "P": 32, "U": 48}
    plan = lower(load_text(SPEC.format(line=line, more=more)), sizes, "bfloat16")
    return next(k.program for k in plan.kernels if k.schedule == "loop")


def functions(made: Program) -> set[str]:
    return {op.fn for op in all_ops(made.body) if isinstance(op, Elementwise)}


@pytest.mark.parametrize(
    "where",
    [
        "",
        ", where=u - M < P",  # of all positions
        ", where=u >= 0 and u - M - P <= m",
    ],
)
def test_each_part_has_products_of_its_own(where: str) -> None:
    made = program(READ.format(where=where))
    assert "U" not in {tile.dim for tile in made.blocks}
    assert sum(isinstance(op, Dot) for op in all_ops(made.body)) == 4
    assert functions(made).isdisjoint({"lt", "le", "ge", "eq"})  # nothing is looked up or masked


def test_a_mask_stays_where_it_cuts() -> None:
    made = program(READ.format(where=", where=u - M <= m"))
    assert "U" not in {tile.dim for tile in made.blocks}
    assert "le" in functions(made)  # the second part is cut, the first is seen whole


def test_an_axis_that_a_tensor_has_stays() -> None:
    made = program("sum(softmax(bias + sum(ask * both, D), U) * both, U)", more=", bias: [U]")
    assert "U" in {tile.dim for tile in made.blocks}
