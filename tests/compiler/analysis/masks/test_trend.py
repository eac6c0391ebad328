"""Signs, trends and sums, against values at every position."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings

from mixc.compiler.analysis.facts import (
    Facts,
    facts_of,
    is_nonnegative,
    is_positive,
    look_through,
    placed,
)
from mixc.compiler.analysis.linear import expression, linear, minus, plus, times
from mixc.compiler.analysis.masks.trend import LIMIT, trend
from mixc.compiler.analysis.pointwise import Values, value_at
from mixc.compiler.language.load import load_text
from mixc.ir.expression import (
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
    call,
)
from mixc.ir.key_ranges import Trend

from . import drawn
from .drawn import BLOCK, DOC, FACTS, KEY, QUERY, START, WINDOW


@settings(max_examples=100, deadline=None)
@given(drawn.numbers(), drawn.values())
def test_trends_hold(expr: Expr, values: Values) -> None:
    found = trend(expr, "I", FACTS)
    for column in range(values.sizes["J"]):
        row = [
            float(value_at(expr, {"I": i, "J": column, "H": 0}, values))
            for i in range(values.sizes["I"])
        ]
        steps = [(a, b) for a, b in pairwise(row)]
        if found in (Trend.RISING, Trend.CONSTANT):
            assert all(a <= b for a, b in steps)
        if found in (Trend.FALLING, Trend.CONSTANT):
            assert all(a >= b for a, b in steps)


@settings(max_examples=80, deadline=None)
@given(drawn.numbers(), drawn.values())
def test_signs_hold(expr: Expr, values: Values) -> None:
    found = value_at(expr, {"I": 0, "J": 0, "H": 0}, values)
    assert found > 0 or not is_positive(expr, FACTS)
    assert found >= 0 or not is_nonnegative(expr, FACTS)


@settings(max_examples=80, deadline=None)
@given(drawn.numbers(), drawn.numbers(), drawn.values())
def test_sums_keep_their_value(a: Expr, b: Expr, values: Values) -> None:
    at = {"I": values.sizes["I"] - 1, "J": 0, "H": 0}
    x, y = value_at(a, at, values), value_at(b, at, values)
    for expr, expected in (
        (expression(linear(a)), x),
        (plus(a, b, 3), x + y + 3),
        (times(a, -2), -2 * x),
        (minus(a), -x),
    ):
        assert value_at(expr, at, values) == pytest.approx(expected)


def test_sums_are_written_positive_terms_first() -> None:
    assert str(plus(call("neg", WINDOW), QUERY, -1, KEY, 2)) == "i + j - window + 1"
    assert str(plus(QUERY, times(QUERY, -1))) == "0"
    assert str(times(plus(QUERY, 3), 2)) == "2 * i + 6"


TRENDS = {
    "rising": [
        QUERY,
        call("floordiv", QUERY, BLOCK),
        call("mul", BLOCK, QUERY),
        Read(DOC, (("T", QUERY),)),
        call("max", QUERY, WINDOW),
        call("ge", QUERY, WINDOW),
        call("where", call("lt", QUERY, WINDOW), Literal(-LIMIT), QUERY),
        call("where", call("lt", QUERY, WINDOW), QUERY, Literal(LIMIT)),
    ],
    "falling": [
        call("sub", WINDOW, QUERY),
        call("lt", QUERY, WINDOW),
        call("neg", Read(DOC, (("T", QUERY),))),
        call("mul", -3, QUERY),
        call("where", call("lt", QUERY, WINDOW), Literal(LIMIT), WINDOW),
    ],
    "constant": [KEY, WINDOW, Size("I"), call("sub", KEY, WINDOW)],
    "unknown": [
        START,
        call("mul", WINDOW, QUERY),
        call("mod", QUERY, 3),
        call("abs", call("sub", QUERY, WINDOW)),
        Read(DOC, (("T", call("add", QUERY, 1)),)),
        call("where", call("lt", QUERY, WINDOW), Literal(LIMIT), QUERY),
        call("floordiv", QUERY, WINDOW),
    ],
}


@pytest.mark.parametrize("name", TRENDS)
def test_known_trends(name: str) -> None:
    assert [trend(expr, "I", FACTS).value for expr in TRENDS[name]] == [name] * len(TRENDS[name])


def test_facts_of_a_mixer() -> None:
    mixer = load_text("""
mixer: facts
inputs:
  x: [B, T, C]
  doc: {dims: [B, T], dtype: int32, sorted: true}
  other: {dims: [T], dtype: int32}
params: {block: 8, twice: 2 * block, shift: 0, late: {default: 3, runtime: true}, scale: C ** -0.5}
let: {near: t - shift}
map: {y: x * near * scale + late + doc + other + twice}
outputs: {y: [B, T, C]}
""")
    facts = facts_of(mixer)
    assert facts.sorted == {("doc", "T")}
    assert facts.positive == {"block", "twice", "scale"}
    assert dict(facts.values) == {"block": 8, "twice": 16, "shift": 0}
    assert facts_of(mixer, {"block": -1}).positive == {"scale"}
    assert facts_of(mixer, {"shift": 2}).positive == {"block", "twice", "shift", "scale"}
    assert str(look_through(mixer.lets[0].ref, facts)) == "t - shift"


def test_lets_are_looked_through() -> None:
    """Down to tensors, and not into sums; a read of one moves to where its tensors are."""
    near = call("add", Ref("bias", frozenset({"J"}), Kind.INT), KEY)
    total = Reduce("sum", near, ("J",))
    running = Cumsum(near, "J")
    facts = Facts(
        lets=(("near", near), ("total", total), ("running", running)),
        sequences=(("I", "T"), ("J", "T")),
        heads=(("G", "H"),),
    )
    let = Ref("near", frozenset({"J"}), Kind.INT)
    assert look_through(call("lt", let, 3), facts) == call("lt", near, 3)
    assert str(look_through(Read(let, (("J", QUERY),)), facts)) == "bias[J=i] + i"
    outside = Read(let, (("J", call("add", QUERY, 1)),))
    assert look_through(outside, facts) == Read(near, outside.at)
    for name, value in (("total", total), ("running", running)):
        ref = Ref(name, value.axes, Kind.INT)
        assert look_through(ref, facts) == ref
    group = call("floordiv", Index("H"), call("floordiv", Size("H"), Size("G")))
    heads = call("and", Ref("odd", frozenset({"G"}), Kind.BOOL), call("le", KEY, QUERY))
    moved = look_through(Read(heads, (("G", group),)), facts)
    assert str(moved) == "odd[G=h // (H // G)] and j <= i"


def test_other_positions_for_a_dim() -> None:
    """Indices and tensors move; what a reduction runs over does not."""
    start = Ref("start", frozenset({"I"}), Kind.INT)
    at = {"I": Scalar("i0", Kind.INT)}
    assert str(placed(plus(start, QUERY, KEY), at)) == "start[I=i0] + i0 + j"
    assert str(placed(Read(DOC, (("T", QUERY),)), at)) == "doc[T=i0]"
    pair = Ref("pair", frozenset({"I", "J"}), Kind.INT)
    assert placed(Read(pair, (("I", QUERY),)), at) == Read(pair, (("I", at["I"]),))
    total = Reduce("sum", call("mul", start, QUERY), ("I",))
    assert placed(total, at) == total
    assert placed(Cumsum(start, "I"), at) == Read(Cumsum(start, "I"), (("I", at["I"]),))


def test_a_runtime_divisor_is_no_positive_number() -> None:
    late = Scalar("late", Kind.INT, runtime=True)
    assert trend(call("floordiv", QUERY, late), "I", FACTS) is Trend.UNKNOWN
