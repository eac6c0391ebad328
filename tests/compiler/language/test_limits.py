"""Hostile specs: small to read, and endless once the names in them are written out."""

import time

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.errors import SpecError

LETS = """\
mixer: lets
inputs: {{q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E], s: [H]}}
dims: {{I: T, J: T}}
let:
  x0: s * 2
{lines}
attention:
  over: J
  score: sum(q * k, D) + x{last}
  output: {{o: v}}
outputs: {{o: [B, H, I, E]}}
"""
STEP = """\
mixer: step
inputs: {{s: [B, T, C]}}
recurrence:
  over: T
  state: {{h: [C]}}
  step:
    - x0 = tanh(h * s) * h
{lines}
    - h = h * 0.5 + x{last}
    - o = h
outputs: {{o: [B, T, C]}}
"""
MAP = """\
mixer: map
inputs: {{s: [B, T, C]}}
stages:
  - map:
      x0: s * 2
{lines}
outputs: {{x{last}: [B, T, C]}}
"""
FORMS = {
    "lets": (LETS, "  x{}: {}"),
    "step": (STEP, "    - x{} = {}"),
    "map": (MAP, "      x{}: {}"),
}
DOUBLES, GROWS = "x{0} + x{0}", "x{0} + 1"
GRADIENT = "grad(sum(x{0} * x{0}, C), h)"


def chain(form, line, length):
    text, pattern = FORMS[form]
    lines = "\n".join(pattern.format(n, line.format(n - 1)) for n in range(1, length))
    return text.format(lines=lines, last=length - 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("line", "length", "limit"),
    [(DOUBLES, 60, "10000 operations"), (GROWS, 300, "110 levels")],
)
def test_a_chain_is_refused_at_the_line_where_it_becomes_too_large(form, line, length, limit):
    start = time.process_time()
    with pytest.raises(SpecError) as caught:
        load_text(chain(form, line, length))
    assert "becomes too large" in str(caught.value)
    assert f"allowed: at most {limit}" in str(caught.value)
    assert caught.value.line
    assert time.process_time() - start < 10


def test_gradients_of_gradients_are_refused():
    start = time.process_time()
    with pytest.raises(SpecError, match="too large"):
        load_text(chain("step", GRADIENT, 16))
    assert time.process_time() - start < 10


@pytest.mark.parametrize("form", FORMS)
def test_what_is_just_small_enough_is_lowered(form):
    last = next(n for n in range(60, 1, -1) if loads(chain(form, DOUBLES, n)))
    start = time.process_time()
    lower(load_text(chain(form, DOUBLES, last)), {})
    assert last >= 10
    assert time.process_time() - start < 30


def loads(text):
    try:
        load_text(text)
    except SpecError:
        return False
    return True


@pytest.mark.parametrize(
    "number", ["2 ** 120", "2 ** 63", "10 ** 15 * 10 ** 15", "2 ** 62 + 2 ** 62"]
)
def test_integers_of_more_than_64_bits_are_refused(number):
    with pytest.raises(SpecError, match="too large for an integer"):
        load_text(chain("map", f"where(index(T) < {number}, x{{0}}, 0)", 2))
