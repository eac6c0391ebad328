"""Which values of a tile program can't be NaN."""

from __future__ import annotations

from math import inf, nan

import pytest

from mixc.ir.never_nan import never_nan
from mixc.ir.tile import Constant, DType, Elementwise, Op, Value

X = Value("x", DType.FLOAT32, frozenset({"I"}))
Y = Value("y", DType.FLOAT32, frozenset({"I"}))
SEEN = Value("seen", DType.BOOL, frozenset({"I"}))
LEAST = Value("least", DType.FLOAT32)
CONDITION = Value("condition", DType.BOOL, frozenset({"I"}))
BOTH = Value("both", DType.BOOL, frozenset({"I"}))
CHOSEN = Value("chosen", DType.FLOAT32, frozenset({"I"}))


def body(fn: str, other: float = -inf, compared: Value = X, joined: str = "and") -> tuple[Op, ...]:
    """``where(seen and fn(compared, y), x, other)``"""
    return (
        Constant(LEAST, other),
        Elementwise(CONDITION, fn, (compared, Y)),
        Elementwise(BOTH, joined, (SEEN, CONDITION)),
        Elementwise(CHOSEN, "where", (BOTH, X, LEAST)),
    )


@pytest.mark.parametrize("fn", ["lt", "le", "gt", "ge", "eq"])
def test_a_comparison_leaves_no_nan(fn: str) -> None:
    assert "chosen" in never_nan(body(fn))


@pytest.mark.parametrize(
    "ops",
    [body("ne"), body("lt", nan), body("lt", compared=Y), body("lt", joined="or")],
    ids=["a NaN is unlike all", "a NaN otherwise", "another value", "either holds"],
)
def test_what_may_be_nan(ops: tuple[Op, ...]) -> None:
    assert "chosen" not in never_nan(ops)
