"""Inputs that are called like what the compiler makes itself."""

from __future__ import annotations

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.errors import UnsupportedError

from .test_small_specs import BACKENDS, check

TEMPERED = """
mixer: tempered
inputs: {NAME: [B], q: [B, T], v: [B, T, E]}
dims: {I: T, J: T}
attention:
  over: J
  score: NAME * q[T=i] * q[T=j]
  mask: j <= i
  normalize: softmax
  output: {o: "v[T=j]"}
outputs: {o: [B, I, E]}
"""


@pytest.mark.parametrize("name", ["score", "total", "scale"])
@BACKENDS
def test_an_input_is_called_like_what_a_normaliser_makes(name: str, backend: str) -> None:
    check(backend, TEMPERED.replace("NAME", name))


@pytest.mark.parametrize("name", ["score", "scale"])
def test_a_normaliser_that_reads_such_an_input_is_refused(name: str) -> None:
    """Its value would be taken for the other: better no kernel than a wrong one."""
    let = f"let: {{own: 2 * {name}}}\nattention"
    text = TEMPERED.replace("NAME", name).replace("attention", let)
    mixer = load_text(text.replace("softmax", "{weight: exp(score), denominator: total + own}"))
    with pytest.raises(UnsupportedError, match=f"call the input {name} otherwise"):
        lower(mixer, {"E": 3}, "float32")


CONVOLVED = """
mixer: convolved
inputs: {M_PI: [B, T], w: [L, E]}
convolution: {over: T, lag: L, kernel: w, signal: M_PI, output: NAN}
outputs: {NAN: [B, T, E]}
"""


@pytest.mark.parametrize("lags", [4, 40])
@BACKENDS
def test_a_convolution_is_called_like_macros(backend: str, lags: int) -> None:
    """Those of headers that only long sums over lags include."""
    check(backend, CONVOLVED, T=77, E=24, L=lags)
