"""The class of each published step, and that its form computes what the lines say."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.compiler.analysis.recurrence.classify import classify
from mixc.compiler.analysis.recurrence.describe import describe
from mixc.ir.mixer import Recurrence
from mixc.ir.recurrence_forms import Loop

from .meaning import Sizes, Value, by_forms, by_rows
from .published import SIZES, Case, axes, loops, parallel, shape
from .random_steps import INPUTS, LENGTHS, random_step
from .rewrites import rewritten
from .steps import recurrence

PARALLEL = {case.name: case for case in parallel()}
LOOPS = {case.name: case for case in loops()}


def check_meaning(
    step: Recurrence,
    inputs: dict[str, Value],
    needed: Collection[str] | None = None,
    sizes: Sizes = SIZES,
) -> None:
    """The forms give the rows and states that the lines give."""
    classified = classify(step, needed)
    with np.errstate(all="ignore"):
        expected = by_rows(step, inputs, sizes)
        found = by_forms(classified, step, inputs, sizes, expected)
    for name, value in found.items():
        if not np.isfinite(expected[name].data).all():
            continue
        both = tuple(sorted({*value.axes, *expected[name].axes}))
        np.testing.assert_allclose(
            value.along(both), expected[name].along(both), rtol=1e-9, atol=1e-11, err_msg=name
        )


@pytest.mark.parametrize("case", {**PARALLEL, **LOOPS}.values(), ids=lambda case: case.name)
def test_class(case: Case) -> None:
    assert shape(classify(case.recurrence())) == case.shown


@pytest.mark.parametrize("case", {**PARALLEL, **LOOPS}.values(), ids=lambda case: case.name)
def test_meaning(case: Case) -> None:
    step, inputs = case.recurrence(), case.values()
    check_meaning(step, inputs)
    found = classify(step)
    own = {ref.name for ref in step.own}
    if not any(isinstance(form, Loop) for form in found.components):
        assert {name for name, _ in found.own} == own


def spelled(name: str, random: Random, times: int) -> tuple[Case, Recurrence, Recurrence]:
    """A published step, as it is and in another spelling."""
    case = PARALLEL[name]
    step = case.recurrence()
    return case, step, rewritten(step, random, times)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(PARALLEL)), st.integers(0, 2**32), st.integers(1, 12))
def test_spellings(name: str, seed: int, times: int) -> None:
    case, step, other = spelled(name, Random(seed), times)
    own = {ref.name for ref in step.own}
    assert shape(classify(other, own)) == shape(classify(step, own)), str(
        [f"{line.name} = {line.value}" for line in other.step]
    )
    check_meaning(other, case.values(), own)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_any_step(seed: int, every: bool) -> None:
    """Whatever the step is, it has a class, a description, and forms that compute it."""
    random = Random(seed)
    step = random_step(random)
    needed = None if every else {step.own[-1].name}
    numbers = np.random.default_rng(random.randrange(1000))
    inputs = {
        name: Value(tuple(sorted(own)), numbers.normal(size=[LENGTHS[a] for a in sorted(own)]))
        for name, own in INPUTS.items()
    }
    found = classify(step, needed)
    assert describe(found, step)
    assert not any(isinstance(f, Loop) and "too deep" in f.reason for f in found.components)
    check_meaning(step, inputs, needed, LENGTHS)


@pytest.mark.parametrize(
    "lines",
    [
        ["x = g", *["x = x * g + k"] * 200, "S = x * S + k * v"],
        ["x = g", *["x = (x + k) * (g + b)"] * 30, "S = x * S + k * v"],
        ["x = g", *["x = x * x"] * 60, "S = x * S + k * v"],
        ["S = g * S + b * k * (v - sum(k * S, D))"] * 12,
        ["S = max(S + g, S + b)"] * 40,
        ["S = tanh(g * S + b)"] * 200,
    ],
    ids=["sums", "products", "squares", "corrections", "maxima", "nested"],
)
def test_long_steps(lines: list[str]) -> None:
    """What doubles or nests with each line is not written out; the step still has a class."""
    inputs = axes("k:B T D, v:B T E, g:B T, b:B T")
    step = recurrence(inputs, {"S": "D E"}, "\n".join([*lines, "o = sum(k * S, D)"]))
    classified = classify(step)
    assert len(classified.components) == 1
    assert all(len(line) < 1000 for line in describe(classified, step))
