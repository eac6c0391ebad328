"""``weight`` and ``buffer`` of inputs: what is read, written, and refused where."""

import pytest

from mixc.autotune.results.stored import spec_hash
from mixc.compiler.language.load import load_text
from mixc.ir.errors import SpecError
from mixc.ir.mixer import Held
from mixc.ir.text import write_mixer

SPEC = """\
mixer: holding
inputs:
  x: [B, T, C]
  a: {dims: [C, N], weight: true}
  n: {dims: [C], buffer: "clip(-(c + index(N)) / C, -1, top[S=0])"}
  s: {dims: [C], weight: 1, default: 0}
  m: {dims: [C], dtype: bool, buffer: c > 0}
params: {rate: {default: 1.0, runtime: true}, top: {dims: [S], values: [4, 8]}}
map: {o: "sum(a, N) * n * s * x * m * rate"}
outputs: {o: [B, T, C]}
"""


def test_what_is_held_is_read_and_written_again():
    mixer = load_text(SPEC.replace("index(N)", "1"))
    assert mixer.input("x").held is None
    assert mixer.input("a").held == Held(trained=True)
    assert [mixer.input(name).held.trained for name in "nsm"] == [False, True, False]
    written = write_mixer(mixer)
    assert "s: {dims: [C], default: 0, weight: 1}" in written
    assert "m: {dims: [C], dtype: bool, buffer: c > 0}" in written
    assert load_text(written) == mixer


def test_what_is_held_is_no_part_of_what_is_computed():
    bare = SPEC.replace(", weight: true", "").replace(", weight: 1", "").replace("index(N)", "1")
    assert spec_hash(load_text(bare)) == spec_hash(load_text(SPEC.replace("index(N)", "1")))


@pytest.mark.parametrize(
    ("line", "place", "message"),
    [
        ("a: {dims: [C, N], weight: x}", "4:29", "reads `x`, which a call gives"),
        ("a: {dims: [C, N], weight: rate}", "4:29", "reads `rate`, which a call gives"),
        ("a: {dims: [C, N], weight: tob}", "4:29", "did you mean `top`?"),
        ("a: {dims: [C, N], weight: t}", "4:29", "has the axes [T], which the input has not"),
        ("a: {dims: [C, N], weight: 1, buffer: 1}", "4:32", "one of the two"),
        ("a: {dims: [C, N], weight: true, grad: false}", "4:21", "write `buffer:`"),
        ("a: {dims: [C, N], dtype: int32, weight: true}", "4:35", "not of real numbers"),
        ("a: {dims: [C, N], dtype: int32, buffer: 0.5}", "4:43", "does not fit its dtype"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(line, place, message):
    text = SPEC.replace("a: {dims: [C, N], weight: true}", line).replace("index(N)", "1")
    with pytest.raises(SpecError) as raised:
        load_text(text, "bad.yaml")
    assert f"bad.yaml:{place}: " in str(raised.value), raised.value
    assert message in str(raised.value)


def test_a_start_has_the_axes_of_its_input():
    with pytest.raises(SpecError, match=r"the start of `n` has the axes \[N\]"):
        load_text(SPEC)
