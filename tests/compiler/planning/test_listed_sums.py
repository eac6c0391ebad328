"""Sums by group over listed blocks, by block: the same numbers, and no look at other places."""

from __future__ import annotations

import pytest
import torch

from mixc.backends.reference.evaluate import evaluate
from mixc.backends.reference.values import Value
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.planning.listed_sums import by_blocks
from mixc.compiler.planning.plan_builder import plan_builder
from mixc.ir.expression import Expr, Index, Kind, Read, Reduce, Ref, Size, call
from mixc.ir.tile import DType

M, S, J, BLOCK = 3, 5, 37, 8
LISTS = Ref("blocks", frozenset({"H", "M", "S"}), Kind.INT)
PARTS = Ref("part", frozenset({"H", "M", "S_L"}), Kind.REAL)


def _summed(width: int | Expr = BLOCK) -> Reduce:
    place = Index("S_L")
    block = Read(LISTS, (("S", call("floordiv", place, Size("L"))),))
    index = call("add", call("mul", block, width), call("mod", place, Size("L")))
    return Reduce("sum", PARTS, ("M", "S_L"), None, (("J", index),))


@pytest.mark.parametrize(("known", "axis"), [(S, "S"), (64, "S_turns")])
def test_it_is_the_same_sum(known: int, axis: str) -> None:
    """Of lists with blocks that are none, past the end, and named twice."""
    mixer = load_file(find_spec("listed_blocks"))
    builder = plan_builder(mixer, {"S": known}, DType.FLOAT32)
    builder.params["block"] = BLOCK
    found = by_blocks(builder, _summed())
    assert isinstance(found, Reduce)
    assert found.over == ("M", axis)
    torch.manual_seed(0)
    lists = torch.randint(-2, 7, (2, M, S))
    lists[0, 0] = 1
    values = {
        "blocks": Value(lists, ("H", "M", "S")),
        "part": Value(torch.randn(2, M, S * BLOCK, dtype=torch.float64), ("H", "M", "S_L")),
    }
    sizes = {"H": 2, "M": M, "S": S, "S_turns": S, "L": BLOCK, "S_L": S * BLOCK, "J": J}
    made, expected = (evaluate(expr, sizes, values) for expr in (found, _summed()))
    order = [made.dims.index(dim) for dim in expected.dims]
    torch.testing.assert_close(made.tensor.permute(order), expected.tensor)


def test_blocks_of_another_width_are_left_alone() -> None:
    """Where places overlap, or leave gaps, several of a block may fall to one key, or none."""
    mixer = load_file(find_spec("listed_blocks"))
    builder = plan_builder(mixer, {}, DType.FLOAT32)
    builder.params["block"] = BLOCK
    for width in (BLOCK // 2, 2 * BLOCK, Size("J")):
        assert by_blocks(builder, _summed(width)) == _summed(width)
