"""Expressions in sizes and params as Python, against what they are defined to be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.backends.host_text import host_text
from mixc.ir.errors import ArgumentError
from mixc.ir.expression import ELEMENTWISE, Expr, Kind, Literal, Scalar, Size, call
from mixc.ir.host import evaluate_host

SIZES, PARAMS = {"T": 7, "H": 4}, {"window": -3, "scale": 0.25, "flag": True}
LEAVES: list[Expr] = [
    Size("T"),
    Size("H"),
    Scalar("window", Kind.INT),
    Scalar("scale", Kind.REAL),
    Literal(-2),
    Literal(3),
    Literal(-1.5),
    Literal(0.5),
]
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


def larger(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    arithmetic = st.sampled_from(["add", "sub", "mul", "div", "min", "max"])
    truth = st.builds(call, st.sampled_from(COMPARISONS), inner, inner)
    whole = st.sampled_from([e for e in LEAVES if e.kind is Kind.INT])
    return st.one_of(
        st.builds(call, arithmetic, inner, inner),
        st.builds(call, st.sampled_from(["neg", "abs"]), inner),
        st.builds(call, st.just("where"), truth, inner, inner),
        st.builds(call, st.sampled_from(["floordiv", "mod"]), whole, whole),
        st.builds(call, st.just("pow"), inner, st.just(Literal(2))),
    )


def run(expr: Expr) -> object:
    text = host_text(expr, {"T": "7"})
    return eval(text.code, {"math": math}, {"H": 4, **PARAMS})


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.sampled_from(LEAVES), larger, max_leaves=8))
def test_numbers_are_what_the_definition_says(expr: Expr) -> None:
    try:
        expected = evaluate_host(expr, SIZES, PARAMS)
        found = run(expr)
    except (ArgumentError, ZeroDivisionError, OverflowError):
        return
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("fn", sorted(n for n, arity in ELEMENTWISE.items() if arity == 1))
def test_every_function_has_a_text(fn: str) -> None:
    if fn == "not":
        expr = call(fn, call("lt", Size("T"), 3))
    else:
        expr = call(fn, call("add", Scalar("scale", Kind.REAL), 0.25))
    assert run(expr) == pytest.approx(evaluate_host(expr, SIZES, PARAMS), rel=1e-9)


def test_signs_and_powers_keep_their_parentheses() -> None:
    size = Size("T")
    for expr, code in (
        (call("pow", Literal(-2), 2), "(-2) ** 2"),
        (call("pow", call("pow", 2, 3), 2), "(2**3) ** 2"),
        (call("pow", size, Literal(-0.5)), "T**-0.5"),
        (call("sub", size, call("sub", Size("H"), 1)), "T - (H - 1)"),
        (call("floordiv", size, call("mul", Size("H"), 2)), "T // (H * 2)"),
        (call("eq", call("lt", size, 2), call("lt", size, 3)), "(T < 2) == (T < 3)"),
    ):
        assert host_text(expr, {}).code == code


def test_what_is_read_is_known() -> None:
    whole = call("where", call("lt", Size("T"), 3), Scalar("scale", Kind.REAL), Size("H"))
    assert host_text(whole, {"H": "H_"}).reads == {"T", "scale", "H_"}


@pytest.mark.parametrize(
    ("fn", "text"), [("lt", "T > 2"), ("ge", "T <= 2"), ("eq", "T == 2"), ("sub", "2 - T")]
)
def test_a_number_stands_behind_what_it_is_compared_to(fn: str, text: str) -> None:
    assert host_text(call(fn, Literal(2), Size("T")), {}).code == text
