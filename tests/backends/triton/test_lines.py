"""Long lines are broken where a formatter would, and mean the same."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.backends.triton.lines import WIDEST, wrap

NAMES = st.sampled_from(["query_tile", "k_tile", "m_new", "o_sum", "BLOCK_J", "1.5", "0"])


def calls(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    names = st.sampled_from(["tl.where", "tl.dot", "tl.maximum", "_softplus"])
    casts = st.sampled_from(["", "", ".to(tl.float32)"])
    return st.tuples(names, st.lists(inner, min_size=1, max_size=4), casts).map(
        lambda p: f"{p[0]}({', '.join(p[1])}){p[2]}"
    )


def infix(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    signs = st.sampled_from(["+", "-", "*", "/", "//", "%", "&", "|"])
    return st.tuples(inner, signs, inner).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})")


EXPRESSIONS = st.recursive(
    NAMES, lambda inner: st.one_of(calls(inner), infix(inner)), max_leaves=30
)


def text_of(lines: list[str]) -> str:
    return "\n".join(lines)


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS, st.sampled_from([0, 4, 12]))
def test_a_wrapped_statement_means_the_same(value: str, indent: int) -> None:
    statement = f"score = {value}"
    lines = wrap(statement, indent)
    assert ast.dump(ast.parse(text_of(lines))) == ast.dump(ast.parse(statement))
    # Parentheses around a single operand are not broken, so a deep nest may stay long.
    assert len(lines) > 1 or indent + len(statement) <= WIDEST or "(" * 3 in statement


def test_calls_break_at_commas_sums_at_their_signs() -> None:
    call = f"x = tl.load({'pointer' * 9}, mask={'exists' * 5}, other=0.0)"
    assert wrap(call, 4) == [
        "x = tl.load(",
        f"    {'pointer' * 9},",
        f"    mask={'exists' * 5},",
        "    other=0.0,",
        ")",
    ]
    total = " + ".join(["a_rather_long_name * another_one"] * 4)
    assert wrap(f"x = {total}", 0) == [
        "x = (",
        "    a_rather_long_name * another_one",
        *["    + a_rather_long_name * another_one"] * 3,
        ")",
    ]


@pytest.mark.parametrize("head", ["for j_start in range", "def attend"])
def test_what_ends_in_a_colon_keeps_it(head: str) -> None:
    line = f"{head}({', '.join(['tl_minimum'] * 12)}):"
    lines = wrap(line, 4)
    assert lines[-1] == "):"
    assert all(len(text) <= WIDEST - 4 for text in lines)


def test_a_tuple_has_a_line_for_each_value() -> None:
    first, second = "a" * 60, "b" * 60
    assert wrap(f"return {first}, {second}", 4) == [
        "return (",
        f"    {first},",
        f"    {second},",
        ")",
    ]
    lines = wrap(f"x, y = tl.associative_scan(({first}, {second}), 0, both)", 0)
    assert lines[:3] == ["x, y = tl.associative_scan(", "    (", f"        {first},"]
    assert lines[-4:] == ["    ),", "    0,", "    both,", ")"]
