"""What known params make trivial."""

from __future__ import annotations

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.passes.fold_constants import fold_constants
from mixc.ir.mixer import Map
from mixc.ir.text import write_expression

SPEC = """
mixer: m
inputs: {{x: [T]}}
params: {{causal: false}}
map: {{o: "{}"}}
outputs: {{o: [T]}}
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x + cumsum(where(causal, x, 2.0), T)", "x + 2.0 * (t + 1)"),
        ("x + cumsum(where(causal, x, 2.0), T, reverse=true)", "x + 2.0 * (T - 1 - t + 1)"),
        ("x * sum(where(causal, x, 2.0), T)", "x * (2.0 * T)"),
        ("x * sum(where(causal, 2.0, x), T)", "x * sum(x, T)"),
    ],
)
def test_a_sum_whose_axis_is_gone_is_said_without_it(before: str, after: str) -> None:
    (stage,) = load_text(SPEC.format(before)).stages
    assert isinstance(stage, Map)
    (equation,) = stage.equations
    assert write_expression(fold_constants(equation.value, {"causal": False})) == after
