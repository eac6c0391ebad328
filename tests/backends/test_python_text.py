"""Long lines are broken where a formatter would, and mean the same."""

from __future__ import annotations

import ast
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixc.backends.python_text import (
    ATOM,
    PRODUCT,
    SUM,
    WIDEST,
    Text,
    call,
    chain,
    comment,
    fill,
    infix,
    listed,
    name,
    several,
    statement,
)

_WIDE = ".to(tl.float32)"
LONG = "of_a_name_that_is_rather_long_" * 2
# An expression, and the same with parentheses around every part.
Pair = tuple[Text, str]
NAMES = st.sampled_from(["query_tile", "k_tile", "m_new", "o_sum", "BLOCK_J", LONG]).map(
    lambda variable: (name(variable), variable)
)


def calls(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def made(function: str, given: list[Pair], last: Pair) -> Pair:
        text = call(function, *(text for text, _ in given), mask=last[0])
        return text, f"{function}({', '.join(code for _, code in given)}, mask={last[1]})"

    functions = st.sampled_from(["tl.where", "tl.dot", "_softplus"])
    return st.builds(made, functions, st.lists(inner, min_size=1, max_size=3), inner)


def operators(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    def made(left: Pair, sign: str, right: Pair) -> Pair:
        return infix(left[0], sign, right[0]), f"({left[1]}) {sign} ({right[1]})"

    return st.builds(made, inner, st.sampled_from("| & + - * / // % < ==".split()), inner)


def changed(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    after = st.sampled_from([".to(tl.float32)", "[:, None]"])
    return st.one_of(
        inner.map(lambda x: (x[0].behind("-"), f"-({x[1]})")),
        st.builds(lambda x, suffix: (x[0].then(suffix), f"({x[1]}){suffix}"), inner, after),
    )


EXPRESSIONS = st.recursive(
    NAMES, lambda inner: st.one_of(calls(inner), operators(inner), changed(inner)), max_leaves=30
)


def same(one: str, other: str) -> bool:
    return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))


def only_a_name(line: str) -> bool:
    """Whether nothing but the long name, its signs and suffixes, is in a line."""
    bare = re.sub(r"\.to\(tl\.float32\)|\[:, None\]|[-()]", "", line.strip().rstrip(","))
    return bare.removeprefix("score = ").removeprefix("mask=") == LONG


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS, st.sampled_from([0, 1, 3]))
@example((name(LONG).then(_WIDE).behind("-").then(_WIDE), f"(-(({LONG}){_WIDE})){_WIDE}"), 1)
def test_what_is_written_means_what_it_is_made_of(value: Pair, depth: int) -> None:
    text, whole = value
    assert same(text.code, whole)
    lines = statement(text, depth, "score = ")
    assert same("\n".join(line[4 * depth :] for line in lines), f"score = {whole}")
    # A name has to stand somewhere, however deep its place is and whatever is stuck to it.
    assert all(
        len(line) <= WIDEST or len(line.strip()) <= 40 + len(LONG) or only_a_name(line)
        for line in lines
    )
    found = {node.id for node in ast.walk(ast.parse(whole)) if isinstance(node, ast.Name)}
    assert text.reads == found - {"tl", "_softplus"}


def test_calls_break_at_commas_sums_at_their_signs() -> None:
    loaded = call("tl.load", "pointer" * 9, mask="exists" * 5, other="0.0")
    assert loaded.lines(4, "x = ") == [
        "x = tl.load(",
        f"    {'pointer' * 9},",
        f"    mask={'exists' * 5},",
        "    other=0.0,",
        ")",
    ]
    product = infix(name("a_rather_long_name"), "*", name("another_one"))
    assert chain("+", [product] * 4).lines(0, "x = ") == [
        "x = (",
        "    a_rather_long_name * another_one",
        *["    + a_rather_long_name * another_one"] * 3,
        ")",
    ]
    assert chain("+", [name("a_rather_long_name")] * 4).lines(0, f"{'x' * 20} = ") == [
        f"{'x' * 20} = (",
        f"    {' + '.join(['a_rather_long_name'] * 4)}",
        ")",
    ]


def test_what_follows_parentheses_stays_behind_them() -> None:
    total = infix(name("a" * 50), "+", name("b" * 40))
    assert total.then(".to(tl.float32)").lines(0) == [
        "(",
        f"    {'a' * 50} + {'b' * 40}",
        ").to(tl.float32)",
    ]


@pytest.mark.parametrize(("before", "function"), [("for j_start in ", "range"), ("def ", "attend")])
def test_what_ends_in_a_colon_keeps_it(before: str, function: str) -> None:
    lines = call(function, *["tl_minimum"] * 12).lines(4, before, ":")
    assert lines[-1] == "):"
    assert all(len(text) <= WIDEST - 4 for text in lines)


def test_comments_and_lists_fill_their_lines() -> None:
    words = "a word or two " * 20
    assert all(line.startswith("# ") and len(line) <= 92 for line in comment(words, 8))
    assert " ".join(line[2:] for line in comment(words, 8)).split() == words.split()
    lines = fill([f"argument_{n}" for n in range(30)], 4)
    assert all(len(line) <= WIDEST and line.endswith(",") for line in lines)
    assert " ".join(lines).split() == [f"argument_{n}," for n in range(30)]


def test_a_tuple_has_a_line_for_each_value() -> None:
    first, second = name("a" * 60), name("b" * 60)
    assert several([first, second]).lines(4, "return ") == [
        "return (",
        f"    {first.code},",
        f"    {second.code},",
        ")",
    ]
    assert several([first]).code == first.code
    lines = call("tl.associative_scan", listed([first, second]), 0, "both").lines(0, "x, y = ")
    assert lines[:3] == ["x, y = tl.associative_scan(", "    (", f"        {first.code},"]
    assert lines[-4:] == ["    ),", "    0,", "    both,", ")"]


def test_parentheses_are_those_that_are_needed() -> None:
    a, b, c = name("a"), name("b"), name("c")
    total = infix(a, "+", b)
    assert total.at(SUM) is total
    assert total.at(PRODUCT).code == "(a + b)"
    assert total.at(ATOM).at(ATOM).code == "(a + b)"
    assert infix(total, "-", c).parts == (a, b, c)
    assert infix(c, "+", total).code == "c + (a + b)"
    assert infix(c, "+", total, regroup=True).parts == (c, a, b)
    assert infix(c, "-", total, regroup=True).code == "c - (a + b)"
    assert infix(infix(a, "/", b), "*", c).code == "a / b * c"
    assert infix(c, "*", infix(infix(a, "/", b), "*", c), regroup=True).code == "c * (a / b * c)"
