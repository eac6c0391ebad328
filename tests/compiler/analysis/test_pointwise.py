"""The value at one position, against the reference at all positions."""

from __future__ import annotations

import math

import pytest
import torch

from mixc.backends.reference.evaluate import evaluate
from mixc.backends.reference.values import Value
from mixc.compiler.analysis.pointwise import Values, value_at
from mixc.ir.expression import Cumsum, Expr, Index, Kind, Literal, Read, Reduce, Ref, Size, call

I_, J_ = Index("I"), Index("J")
TABLE = Ref("table", frozenset({"I", "J"}), Kind.REAL)
ROW = Ref("row", frozenset({"J"}), Kind.INT)
EXPRESSIONS: dict[str, Expr] = {
    "arithmetic": call("sub", call("mul", TABLE, 2), call("floordiv", call("neg", I_), 3)),
    "mask": call("and", call("le", J_, I_), call("eq", call("mod", call("sub", I_, J_), 2), 0)),
    "choice": call("where", call("gt", TABLE, 0), TABLE, call("div", ROW, Size("J"))),
    "sum": Reduce("sum", TABLE, ("J",), call("le", J_, I_)),
    "largest of none": Reduce("max", TABLE, ("J",), call("lt", J_, I_)),
    "by group": Reduce("sum", TABLE, ("J",), None, (("N", call("floordiv", J_, 2)),)),
    "read": Read(TABLE, (("J", call("add", ROW, I_)),), 7.0),
    "transpose": Read(TABLE, (("I", J_), ("J", I_))),
    "running": Cumsum(TABLE, "J"),
    "running back": Cumsum(TABLE, "J", reverse=True, exclusive=True),
}
SIZES = {"I": 4, "J": 4, "N": 2}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_both_give_the_same(name: str) -> None:
    expr = EXPRESSIONS[name]
    generator = torch.Generator().manual_seed(3)
    table = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    row = torch.tensor([0, 2, -1, 1])
    values = Values(SIZES, {}, {"table": (("I", "J"), table), "row": (("J",), row.tolist())})
    given = {"table": Value(table, ("I", "J")), "row": Value(row, ("J",))}
    whole = evaluate(expr, SIZES, given)
    assert set(whole.dims) == expr.axes
    for place in torch.cartesian_prod(*(torch.arange(SIZES[dim]) for dim in whole.dims)):
        spot = tuple(place.reshape(-1).tolist())
        found = value_at(expr, dict(zip(whole.dims, spot, strict=True)), values)
        expected = whole.tensor[spot].item()
        assert found == pytest.approx(expected) or (math.isinf(found) and found == expected)


def test_a_literal_is_itself() -> None:
    assert value_at(Literal(2.5), {}, Values({})) == 2.5
