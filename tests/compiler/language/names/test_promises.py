"""``range`` and ``unit`` of inputs: what is read, written, and refused where."""

import pytest

from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError
from mixc.ir.expression import Literal, Scalar
from mixc.ir.text import write_mixer

SPEC = """\
mixer: promising
inputs:
  k: {dims: [B, T, D], unit: true}
  u: {dims: [B, D, T], unit: D}
  g: {dims: [B, T], range: [-most, inf]}
  n: {dims: [B], dtype: int32, range: [0, 7]}
  plain: {dims: [B], unit: false}
params: {most: 2.0}
map:
  o: sum(k * u, D) * g + n * plain * most
outputs: {o: [B, T]}
"""


def test_what_is_promised_is_read_and_written_again():
    mixer = load_text(SPEC)
    assert [i.unit for i in mixer.inputs] == ["D", "D", None, None, None]
    low, high = mixer.input("g").range
    assert (low.args, high) == ((Scalar("most", low.args[0].kind),), Literal(float("inf")))
    assert mixer.input("n").range == (Literal(0), Literal(7))
    written = write_mixer(mixer)
    assert "k: {dims: [B, T, D], unit: D}" in written
    assert "g: {dims: [B, T], range: [-most, inf]}" in written
    assert load_text(written) == mixer


@pytest.mark.parametrize(
    ("line", "place", "message"),
    [
        ("g: {dims: [B, T], range: [1, 0]}", "5:21", "the range of `g` is empty"),
        ("g: {dims: [B, T], range: [0]}", "5:21", "a range of 1 numbers"),
        ("g: {dims: [B, T], range: 1}", "5:28", "a list"),
        ("g: {dims: [B, T], range: [[0], 1]}", "5:21", "is no number"),
        ("g: {dims: [B, T], range: [0, k]}", "5:32", "has the axes [B, D, T]"),
        ("g: {dims: [B, T], range: [0, mots]}", "5:32", "did you mean `most`?"),
        ("g: {dims: [B, T], dtype: bool, range: [0, 1]}", "5:34", "is true or false"),
        ("g: {dims: [B, T], unit: D}", "5:27", "`unit: true` is along the last axis"),
        ("g: {dims: [B, T], dtype: int8, unit: true}", "5:40", "has no vectors of length 1"),
        ("g: {dims: [B, T], unit: true, range: [0, 1]}", "5:27", "has a range already"),
    ],
)
def test_what_is_wrong_with_a_promise_is_said_at_its_place(line, place, message):
    text = SPEC.replace("g: {dims: [B, T], range: [-most, inf]}", line)
    with pytest.raises(SpecError) as raised:
        load_text(text, "bad.yaml")
    assert f"bad.yaml:{place}: " in str(raised.value), raised.value
    assert message in str(raised.value)
