"""Ranges derived from masks, against brute force over every position."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.compiler.analysis.masks.range_meaning import BlockRange, evaluate_ranges
from mixc.compiler.analysis.masks.ranges import key_ranges, needs_block_table
from mixc.compiler.analysis.pointwise import Values, value_at
from mixc.ir.expression import Expr, Kind, Literal, Read, Ref, Scalar, Size, call
from mixc.ir.key_ranges import Row, Trend

from . import drawn
from .drawn import (
    ALPHA,
    BLOCK,
    DOC,
    FACTS,
    GLOBAL_I,
    GLOBAL_J,
    KEY,
    PAIR,
    QUERY,
    WINDOW,
    both,
    causal,
    either,
    window,
)


def check(mask: Expr, values: Values, axis: str, block: str, limit: int = 4) -> None:
    """Visible pairs are in a loose range, all pairs in a full range are visible."""
    ranges = key_ranges(mask, axis, block, FACTS, limit)
    assert len(ranges.disjuncts) <= limit
    seen = drawn.visible(mask, values)
    if axis == "I":
        seen = [list(column) for column in zip(*seen, strict=True)]
    rows = values.sizes[block]
    for first in range(rows):
        for last in sorted({first, min(first + 2, rows - 1), rows - 1}):
            found = evaluate_ranges(ranges, first, last, values, {"H": 0})
            check_block(found, seen[first : last + 1])


def check_block(found: tuple[BlockRange, ...], seen: list[list[bool]]) -> None:
    columns = range(len(seen[0]))
    for one in found:
        assert 0 <= one.lo <= one.full_lo <= one.full_hi <= one.hi <= len(columns)
    loose = {j for one in found for j in range(one.lo, one.hi)}
    full = {j for one in found for j in range(one.full_lo, one.full_hi)}
    assert {j for j in columns if any(row[j] for row in seen)} <= loose
    assert full <= {j for j in columns if all(row[j] for row in seen)}


@settings(max_examples=150, deadline=None)
@given(drawn.masks(), drawn.values(), st.sampled_from(["IJ", "JI"]), st.sampled_from([1, 2, 4]))
def test_ranges_hold_for_random_masks(mask: Expr, values: Values, roles: str, limit: int) -> None:
    check(mask, values, roles[0], roles[1], limit)


FAR = call("ge", call("sub", QUERY, KEY), call("sub", BLOCK, 2))
AFFINE = {
    "causal": causal(),
    "window": both(causal(), window()),
    "two-sided": call("le", call("abs", call("sub", QUERY, KEY)), WINDOW),
    "strided": both(call("le", call("mul", 2, KEY), call("add", QUERY, 3)), FAR),
    "reversed": call("ge", call("sub", call("add", KEY, QUERY), WINDOW), 0),
    "own block": call("eq", call("floordiv", KEY, BLOCK), call("floordiv", QUERY, BLOCK)),
    "near blocks": call(
        "le",
        call("abs", call("sub", call("floordiv", QUERY, BLOCK), call("floordiv", KEY, BLOCK))),
        1,
    ),
    "prefix": either(causal(), call("lt", KEY, WINDOW)),
    "documents": both(causal(), call("eq", Read(DOC, (("T", QUERY),)), Read(DOC, (("T", KEY),)))),
}


@pytest.mark.parametrize("roles", ["IJ", "JI"])
@pytest.mark.parametrize("name", AFFINE)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_monotone_masks_have_one_tight_range(name: str, roles: str, data: st.DataObject) -> None:
    """One disjunct without residual, whose ends for one row are the first and last visible."""
    mask, (axis, block) = AFFINE[name], roles
    values = data.draw(drawn.values())
    check(mask, values, axis, block)
    ranges = key_ranges(mask, axis, block, FACTS)
    (disjunct,) = ranges.disjuncts
    assert disjunct.exact
    assert all(bound.trend is Trend.RISING for bound in disjunct.bounds) or name in (
        "prefix",
        "reversed",
    )
    seen = drawn.visible(mask, values)
    for row in range(values.sizes[block]):
        line = seen[row] if block == "I" else [other[row] for other in seen]
        (found,) = evaluate_ranges(ranges, row, row, values, {"H": 0})
        places = [place for place, shown in enumerate(line) if shown]
        expected = (places[0], places[-1] + 1) if places else (0, 0)
        assert (found.lo, found.hi) == expected
        assert (found.full_lo, found.full_hi) == expected or not places


def test_real_spans_are_widened_and_narrowed_by_one() -> None:
    """What 32-bit floats may get wrong at the edge is neither left out nor taken as full."""
    mask = both(causal(), call("lt", call("sub", QUERY, KEY), ALPHA))
    (disjunct,) = key_ranges(mask, "J", "I", FACTS).disjuncts
    (lower,) = disjunct.lower
    row, alpha = {"I": 9, "H": 0}, {"alpha": (("H",), [4.0])}
    values = Values({"I": 10, "J": 10, "T": 10}, {}, alpha)
    assert lower.trend is Trend.RISING
    assert [value_at(value, row, values) for value in (lower.loose, lower.tight)] == [5, 7]


@pytest.mark.parametrize("columns", [3, 8])
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_unequal_lengths(columns: int, data: st.DataObject) -> None:
    values = data.draw(drawn.values(equal=False))
    check(both(window(), either(causal(), GLOBAL_J)), values, "J", "I")


def bounds(mask: Expr, axis: str = "J", block: str = "I") -> list[tuple[list[str], list[str]]]:
    found = key_ranges(mask, axis, block, FACTS).disjuncts
    return [([str(b.loose) for b in d.lower], [str(b.loose) for b in d.upper]) for d in found]


def test_closed_forms() -> None:
    assert bounds(both(causal(), window())) == [(["i - window + 1"], ["i + 1"])]
    assert bounds(both(causal(), window()), "I", "J") == [(["j"], ["window + j"])]
    assert bounds(AFFINE["own block"]) == [(["i // block * block"], ["(i // block + 1) * block"])]
    assert bounds(AFFINE["prefix"]) == [([], ["max(i + 1, window)"])]
    assert bounds(call("lt", KEY, Literal(2.5))) == [([], ["3"])]
    assert bounds(call("lt", KEY, Literal(float("inf")))) == [([], [str(2**30)])]


def test_what_always_holds_is_no_bound() -> None:
    assert bounds(both(call("ge", KEY, 0), call("lt", KEY, Size("T")), causal())) == [
        ([], ["i + 1"])
    ]
    assert bounds(call("eq", KEY, 0)) == [([], ["1"])]
    assert key_ranges(Literal(False), "J", "I", FACTS).disjuncts == ()
    (all_of_it,) = key_ranges(None, "J", "I", FACTS).disjuncts
    assert all_of_it.exact
    assert not all_of_it.bounds


def test_extremes_are_taken_at_the_ends_of_a_block() -> None:
    (disjunct,) = key_ranges(both(causal(), window()), "J", "I", FACTS).disjuncts
    (lower,), (upper,) = disjunct.lower, disjunct.upper
    assert (lower.row(largest=False), lower.row(largest=True)) == (Row.FIRST, Row.LAST)
    assert (upper.row(largest=False), upper.row(largest=True)) == (Row.FIRST, Row.LAST)
    stop = Ref("start", frozenset({"I"}), Kind.INT)
    (by_table,) = key_ranges(call("lt", KEY, stop), "J", "I", FACTS).disjuncts
    assert by_table.upper[0].row(largest=True) is Row.EVERY
    (constant,) = key_ranges(call("lt", KEY, WINDOW), "J", "I", FACTS).disjuncts
    assert constant.upper[0].row(largest=True) is Row.ANY


def test_sorted_ids_are_searched() -> None:
    (disjunct,) = key_ranges(AFFINE["documents"], "J", "I", FACTS).disjuncts
    searches = [search for bound in disjunct.bounds for search in bound.searches]
    assert {(s.name, s.table, s.dim, s.side) for s in searches} == {
        ("doc_left", DOC, "T", "left"),
        ("doc_right", DOC, "T", "right"),
    }
    assert {s.value for s in searches} == {Read(DOC, (("T", QUERY),))}


def test_sinks_come_before_the_window() -> None:
    mask = both(causal(), either(call("lt", KEY, 4), window()))
    ranges = key_ranges(mask, "J", "I", FACTS)
    assert ranges.ordered
    assert bounds(mask) == [([], ["i + 1", "4"]), (["i - window + 1"], ["i + 1"])]


def test_a_condition_joins_a_bound() -> None:
    """A head that sees everything is a window without end, not a loop of its own."""
    retrieval = Ref("retrieval", frozenset({"H"}), Kind.BOOL)
    mask = both(causal(), either(retrieval, window()))
    assert bounds(mask) == [(["where(retrieval, -1073741824, i - window + 1)"], ["i + 1"])]


def test_a_window_without_end_stays_in_32_bits() -> None:
    mask = call("le", call("abs", call("sub", QUERY, KEY)), WINDOW)
    facts = drawn.with_values(window=2**31 - 1)
    (disjunct,) = key_ranges(mask, "J", "I", facts).disjuncts
    found = [value_at(b.loose, {"I": 10**6}, Values({})) for b in disjunct.bounds]
    assert all(-(2**31) <= value < 2**31 for value in found)
    assert found[0] < 0
    assert found[1] > 10**9


def test_an_endless_span_in_blocks_stays_in_32_bits() -> None:
    mask = call("le", call("floordiv", call("sub", QUERY, KEY), BLOCK), ALPHA)
    (disjunct,) = key_ranges(mask, "J", "I", FACTS).disjuncts
    (lower,) = disjunct.lower
    for alpha, expected in ((float("inf"), (-(2**31), -(10**9))), (2.0, (-3, -3))):
        values = Values({}, {"block": 4}, {"alpha": (("H",), [alpha])})
        found = value_at(lower.loose, {"I": 8, "H": 0}, values)
        assert expected[0] <= found <= expected[1]


def test_known_flags_are_decided() -> None:
    full = Scalar("full", Kind.BOOL)
    mask = both(causal(), either(full, window()))
    for value, lower in ((1, 0), (0, 1)):
        facts = drawn.with_values(full=value)
        (disjunct,) = key_ranges(mask, "J", "I", facts).disjuncts
        assert len(disjunct.lower) == lower


def test_rows_that_see_nothing() -> None:
    (disjunct,) = key_ranges(both(causal(), call("lt", QUERY, WINDOW)), "J", "I").disjuncts
    (condition,) = disjunct.conditions
    assert condition.trend is Trend.FALLING
    assert (condition.row(some=True), condition.row(some=False)) == (Row.FIRST, Row.LAST)


def test_what_cancels_still_has_a_row() -> None:
    """i > i is the same everywhere, but evaluated at a row all the same."""
    mask = both(causal(), call("gt", QUERY, QUERY))
    (disjunct,) = key_ranges(mask, "J", "I").disjuncts
    assert disjunct.conditions[0].row(some=True) is not Row.ANY


def test_terms_without_a_bound_stay_partial() -> None:
    every_fourth = call("eq", call("mod", call("sub", QUERY, KEY), 4), 0)
    (disjunct,) = key_ranges(both(causal(), every_fourth), "J", "I", FACTS).disjuncts
    assert disjunct.residual == (every_fourth,)
    assert not disjunct.exact
    assert [str(b.loose) for b in disjunct.upper] == ["i + 1"]


def test_what_bounds_leave_of_a_mask() -> None:
    odd, third = (call("eq", call("mod", call("sub", QUERY, KEY), n), 0) for n in (2, 3))

    def rest(*terms: Expr) -> tuple[Expr, ...]:
        return key_ranges(both(causal(), *terms), "J", "I", FACTS).rest

    assert rest(odd) == (odd,)
    assert rest(odd, third) == (odd, third)
    assert rest(either(odd, third)) in ((), (either(odd, third),))  # never one of them alone
    assert rest() == ()


def test_beyond_the_limit_disjuncts_are_merged() -> None:
    parts = [
        both(call("le", call("mul", n, KEY), QUERY), call("gt", call("mul", n + 1, KEY), QUERY))
        for n in range(1, 9)
    ]
    ranges = key_ranges(either(*parts), "J", "I", FACTS, limit=3)
    assert len(ranges.disjuncts) <= 3
    deep = both(*(either(*parts[n : n + 2]) for n in range(7)), causal())
    (many,) = key_ranges(both(deep, deep), "J", "I", FACTS, limit=1).disjuncts
    assert [str(b.loose) for b in many.upper] == ["i + 1"]


def test_large_masks_take_no_time() -> None:
    """What could double with every level is cut off: bounds get looser, and that's all."""
    deep: Expr = call("sub", QUERY, KEY)
    for n in range(60):
        deep = call("abs", call("sub", deep, n))
    many = [both(call("lt", KEY, n), call("gt", call("add", KEY, QUERY), n)) for n in range(40)]
    ranges = key_ranges(both(causal(), call("lt", deep, 5), either(*many)), "J", "I", FACTS)
    assert all(disjunct.upper for disjunct in ranges.disjuncts)


@pytest.mark.parametrize(
    ("mask", "wanted"),
    [
        (causal(), False),
        (PAIR, True),
        (both(causal(), PAIR), True),
        (both(window(), causal(), PAIR), False),
        (both(AFFINE["own block"], PAIR), False),
        (both(AFFINE["documents"], PAIR), True),
        (both(causal(), GLOBAL_J), False),
        (both(causal(), GLOBAL_I), False),
        (either(GLOBAL_J, both(causal(), window())), True),
        (call("eq", call("mod", call("sub", QUERY, KEY), 4), 0), False),
        (both(causal(), call("eq", call("mod", call("sub", QUERY, KEY), 4), 0)), False),
        (call("eq", call("mod", call("floordiv", KEY, BLOCK), 4), 0), True),
    ],
)
def test_block_tables_where_bounds_do_not_help(mask: Expr, wanted: bool) -> None:
    assert needs_block_table(key_ranges(mask, "J", "I", FACTS)) is wanted
