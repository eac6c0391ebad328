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
from mixc.compiler.analysis.recurrence.forms import Loop
from mixc.ir.mixer import Recurrence

from .meaning import Sizes, Value, by_forms, by_rows
from .published import SIZES, Case, loops, parallel, shape
from .random_steps import INPUTS, LENGTHS, random_step
from .rewrites import rewritten

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
        axes = tuple(sorted({*value.axes, *expected[name].axes}))
        np.testing.assert_allclose(
            value.along(axes), expected[name].along(axes), rtol=1e-9, atol=1e-11, err_msg=name
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
        name: Value(tuple(sorted(axes)), numbers.normal(size=[LENGTHS[a] for a in sorted(axes)]))
        for name, axes in INPUTS.items()
    }
    found = classify(step, needed)
    assert describe(found, step)
    assert not any(isinstance(f, Loop) and "too deep" in f.reason for f in found.components)
    check_meaning(step, inputs, needed, LENGTHS)
