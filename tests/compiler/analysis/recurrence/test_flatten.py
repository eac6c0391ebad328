"""Inner loops laid out in time: the same values, and a form where the loop had none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mixc.compiler.analysis.recurrence.classify import classify
from mixc.compiler.analysis.recurrence.flatten import flatten
from mixc.ir.expression import Read

from .meaning import Rows, by_rows
from .published import SIZES, Case, shape

_QKV = "q:B T D, k:B T R D, v:B T R E, beta:B T R, g:B T D, new:B T"
_STEPS = {
    "delta product": """
        S = exp(g) * S
        for R:
            S = S + beta * k * (v - sum(k * S, D))
        o = sum(q * S, D)
        """,
    "own names": """
        e = exp(g)
        S = e * S
        for R:
            error = v - sum(k * S, D)
            S = S + beta * (r + 1) * k * error * sum(e, D)
        last = sum(q * S, D)
        S = 0.5 * S
        o = last + t
        """,
}


def case(name: str, reset: str | None = None) -> Case:
    return Case(name, _QKV, "S:D E", _STEPS[name], (), reset=reset)


@pytest.mark.parametrize("reset", [None, "new > 0.3"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", _STEPS)
def test_values(name: str, reverse: bool, reset: str | None) -> None:
    case_ = case(name, reset)
    step, inputs = replace(case_.recurrence(), reverse=reverse), case_.values()
    flat = flatten(step)
    assert flat is not None
    sizes = {**SIZES, flat.axis: SIZES["T"] * SIZES["R"]}
    expected = by_rows(step, inputs, sizes)
    found = by_rows(flat.recurrence, inputs, sizes)
    rows = Rows(sizes, {**inputs, **found})
    assert {row for row, _, _ in flat.rows} == {ref.name for ref in step.own}
    for row, made, place in flat.rows:
        value = rows.of(Read(made, ((flat.axis, place),)))
        np.testing.assert_allclose(value.data, expected[row].data, rtol=1e-12)
    end = 0 if reverse else -1
    state, flat_state = expected["S.out"], found["S.out"]
    np.testing.assert_allclose(
        flat_state.at(flat.axis, end).data, state.at("T", end).data, rtol=1e-12
    )


@pytest.mark.parametrize("name", _STEPS)
def test_class(name: str) -> None:
    flat = flatten(case(name).recurrence())
    assert flat is not None
    assert shape(classify(flat.recurrence)) == ("S: matrix D entry log rank 1",)


@pytest.mark.parametrize(
    "step",
    [
        "S = exp(g) * S\no = sum(q * S, D)",
        "e = sum(q * S, D)\nfor R:\n    S = S + beta * k * (v - e)",
        "for R:\n    e = v - sum(k * S, D)\n    S = S + k * e\no = sum(e, R)",
    ],
    ids=["no loop", "a value kept for all rounds", "all rounds read after"],
)
def test_as_it_is(step: str) -> None:
    assert flatten(Case("", _QKV, "S:D E", step, ()).recurrence()) is None
