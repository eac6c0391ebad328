"""Coefficients as polynomials: one key for all spellings, the same numbers, logarithms, bounds."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.compiler.analysis.recurrence.bounds import bounds
from mixc.compiler.analysis.recurrence.logarithm import logarithm
from mixc.compiler.analysis.recurrence.polynomial import polynomial, tidy, written
from mixc.ir.expression import Expr, Kind, Literal, Ref, call

from .meaning import Rows, Value
from .steps import expression

NAMES: dict[str, Expr] = {n: Ref(n, frozenset(), Kind.REAL) for n in "abcdg"}


def text(expr: str) -> Expr:
    return expression(expr, NAMES)


def number(expr: Expr, seed: int) -> float:
    random = np.random.default_rng(seed)
    values = {name: Value((), np.array(random.normal())) for name in NAMES}
    with np.errstate(all="ignore"):
        return float(Rows({"H": 4}, values).of(expr).data)


def random_value(random: Random, depth: int) -> Expr:
    if depth == 0 or random.random() < 0.2:
        return random.choice([*NAMES.values(), Literal(2), Literal(-1), Literal(0.5)])
    fn = random.choice(("add", "sub", "mul", "mul", "neg", "exp", "div", "sigmoid"))
    if fn in ("neg", "exp", "sigmoid"):
        return call(fn, random_value(random, depth - 1))
    return call(fn, random_value(random, depth - 1), random_value(random, depth - 1))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_written_out(seed: int) -> None:
    value = random_value(Random(seed), 4)
    for other in (written(polynomial(value)), tidy(value)):
        for point in range(3):
            expected = number(value, point)
            if math.isfinite(expected) and abs(expected) < 1e6:
                assert number(other, point) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_logarithms_and_bounds(seed: int) -> None:
    value = random_value(Random(seed), 4)
    log, known = logarithm(value), bounds(value)
    for point in range(3):
        expected = number(value, point)
        if math.isfinite(expected):
            assert known.low - 1e-9 <= expected <= known.high + 1e-9
            if log is not None and 1e-6 < expected < 1e6:
                assert math.exp(number(log, point)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a * b", "b * a"),
        ("1 - (1 - a)", "a"),
        ("exp(a + b)", "exp(b) * exp(a)"),
        ("a / exp(b)", "exp(-b) * a"),
        ("(a + b) ** 2", "a * a + 2 * a * b + b ** 2"),
        ("-(a - b) * c", "c * b - a * c"),
    ],
)
def test_one_key(one: str, other: str) -> None:
    assert polynomial(text(one)).key == polynomial(text(other)).key


@pytest.mark.parametrize(
    ("decay", "log"),
    [
        ("exp(g)", "g"),
        ("exp(g) * exp(a)", "g + a"),
        ("sigmoid(g)", "logsigmoid(g)"),
        ("1 - sigmoid(g)", "logsigmoid(-g)"),
        ("sigmoid(g) ** (1 / 16)", "0.0625 * logsigmoid(g)"),
        ("1 / (1 + exp(-g))", "-softplus(-g)"),
        ("exp2(a)", "a * 0.6931471805599453"),
        ("where(b > 0, exp(g), 1)", "where(b > 0, g, 0)"),
        ("where(b > 0, exp(g), 0)", None),
        ("1 - 2 ** (-5 - h)", "log(1 - 2 ** (-(5) - h))"),
        ("1 - 2 ** (5 - h)", None),
        ("a", None),
        ("-exp(a)", None),
        ("0.5", "-0.6931471805599453"),
    ],
)
def test_logarithm(decay: str, log: str | None) -> None:
    found = logarithm(text(decay))
    assert (None if found is None else str(found)) == log
