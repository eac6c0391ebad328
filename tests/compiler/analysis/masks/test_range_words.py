"""Ranges in words, as ``mixc show`` prints them."""

from __future__ import annotations

from mixc.compiler.analysis.masks.range_words import describe
from mixc.compiler.analysis.masks.ranges import key_ranges
from mixc.ir.expression import Expr, Kind, Literal, Ref, call

from .drawn import (
    ALPHA,
    BLOCK,
    FACTS,
    GLOBAL_I,
    KEY,
    PAIR,
    QUERY,
    START,
    WINDOW,
    both,
    causal,
    either,
    window,
)


def words(mask: Expr | None, axis: str = "J", block: str = "I", limit: int = 4) -> list[str]:
    return describe(key_ranges(mask, axis, block, FACTS, limit))


def test_closed_forms() -> None:
    assert words(both(causal(), window())) == [
        "j in [max(0, i0 - window + 1), i1 + 1), full in [max(0, i1 - window + 1), i0 + 1)"
    ]
    assert words(both(causal(), window()), "I", "J") == [
        "i in [j0, window + j1), full in [j1, window + j0)"
    ]
    assert words(None) == ["j in [0, J), all of it full"]
    assert words(Literal(False)) == ["j in no range: nothing is visible"]


def test_searches() -> None:
    doc = Ref("doc_j", frozenset({"J"}), Kind.INT)
    mask = both(call("eq", doc, START), call("lt", KEY, call("mul", 2, BLOCK)))
    assert words(mask) == [
        "j in [min of left(doc_j, start) over i in i0 ... i1, "
        "min(max of right(doc_j, start) over i in i0 ... i1, 2 * block)), "
        "full in [max of left(doc_j, start) over i in i0 ... i1, "
        "min(min of right(doc_j, start) over i in i0 ... i1, 2 * block))"
    ]


def test_real_bounds_lose_their_cut() -> None:
    assert words(both(causal(), call("lt", call("sub", QUERY, KEY), ALPHA))) == [
        "j in [max(0, floor(i0 - alpha)), i1 + 1), full in [max(0, floor(i1 - alpha) + 2), i0 + 1)"
    ]


def test_conditions_and_what_stays_partial() -> None:
    assert words(both(causal(), call("lt", QUERY, WINDOW), GLOBAL_I, PAIR)) == [
        "j in [0, i1 + 1)",
        "  if i0 < window; full if i1 < window",
        "  if any of global_i over i in i0 ... i1; full if all of global_i over i in i0 ... i1",
        "  partial: pair",
    ]


def test_merged_ranges() -> None:
    mask = either(both(causal(), window()), call("gt", KEY, call("mul", 2, QUERY)))
    assert words(mask, limit=1) == ["j in [0, J)", "  partial: several ranges merged into one"]
