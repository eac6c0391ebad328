"""Params set by the user of a mixer."""

import pytest

from mixc.compiler.language.load import load_text
from mixc.ir.binding import param_values
from mixc.ir.errors import ArgumentError
from mixc.runtime.overrides import override

SPEC = """\
mixer: banded
inputs: {x: [T, D], y: [T]}
params:
  width: 4
  scale: D ** -0.5
  causal: true
  steps: {dims: [S], values: [1, 2, 4]}
stages:
  - map:
      o: x * scale * where(causal, width, 1) + sum(steps, S)
outputs: {o: [T, D]}
"""


@pytest.fixture
def mixer():
    return load_text(SPEC)


def test_values_replace_defaults(mixer):
    changed = override(mixer, {"width": 7, "scale": 2, "causal": False})
    assert param_values(changed, {"D": 16}) == {"width": 7, "scale": 2.0, "causal": False}
    assert param_values(mixer, {"D": 16}) == {"width": 4, "scale": 0.25, "causal": True}


def test_a_table_may_change_its_length(mixer):
    (table,) = override(mixer, {"steps": [3, 5]}).tables
    assert (table.shape, table.values) == ((2,), (3.0, 5.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"widht": 1}, "banded has no param 'widht'; did you mean 'width'?"),
        ({"width": 0.5}, "width: expected an integer, got 0.5"),
        ({"width": True}, "width: expected an integer, got True"),
        ({"causal": 2}, "causal: expected true or false, got 2"),
        ({"scale": "big"}, "scale: expected a number, got 'big'"),
        ({"x": 1}, "x is an input of banded: pass it when you call it"),
        ({"steps": 3}, "steps: expected numbers with the axes [S], got 3"),
        ({"steps": [[1], [2]]}, "steps: expected numbers with the axes [S]"),
        ({"steps": [0.5]}, "steps: expected integers, got [0.5]"),
    ],
)
def test_wrong_values(mixer, values, message):
    with pytest.raises(ArgumentError) as caught:
        override(mixer, values)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [1, 0])
def test_a_flag_may_be_one_or_zero(mixer, value):
    changed = override(mixer, {"causal": value})
    assert changed == override(mixer, {"causal": bool(value)})
    assert param_values(mixer, {"D": 16}, {"causal": value})["causal"] is bool(value)
