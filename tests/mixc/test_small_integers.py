"""Integers of every width, by the kernels of every backend that runs here."""

from __future__ import annotations

import pytest
import torch

from mixc.ir.errors import ArgumentError

from .test_small_specs import BACKENDS, _own_cache, check, compiles

__all__ = ["_own_cache"]

FILLED = """
mixer: filled
inputs:
  n: {dims: [T], dtype: int32}
map:
  a: at(n, T=2 * t - 3, fill=-0.5)
  b: "at(cumsum(n, T), T=t + 2, fill=inf) + 1"
  c: at(max(n * (d - 2), D), T=t - 1, fill=0.25)
  r: where(rank(n, T) < 3, n, 0)
  e: at(r, T=2 * t + 1, fill=-1.5)
dims: {D: 5}
outputs: {a: [T], b: [T], c: [T], e: [T]}
"""


@BACKENDS
def test_integers_with_a_fraction_outside(backend: str) -> None:
    """Loaded as integers, the fill was one: -0.5 came out as 0."""
    check(backend, FILLED, {"n": torch.randperm(70, dtype=torch.int32)}, T=70)


INTEGERS = """
mixer: integers
inputs: {k: [J, D], x: [T]}
params: {far: 2 ** 40}
attention: {over: J, score: "sum(k, D)", mask: "j ** 3 % 5 < 2 and t < j + far", output: {o: k}}
outputs: {o: [T, D]}
"""
SUMS = """
mixer: sums
inputs: {x: [T, D], n: {dims: [T], dtype: int32}}
map:
  products: n * n % 1009
  signs: where(n + n > n, 1, 0)
  total: sum(n, T) % 1009 + max(n, T)
  running: cumsum(n, T)
  mixed: x * (cumsum(n, T) // 3 % 7) + n * d
outputs: {products: [T], signs: [T], total: [], running: [T], mixed: [T, D]}
"""


@BACKENDS
def test_integers_beyond_32_bits(backend: str) -> None:
    n = torch.randint(-(2**31), 2**31 - 1, (21,), dtype=torch.int32)
    check(backend, SUMS, {"n": n})
    check(backend, INTEGERS, J=2000)
    with pytest.raises(ArgumentError, match="expected J of at most 2097152, got 2097153"):
        check(backend, INTEGERS, J=2**21 + 1, T=1, D=1)


WIDE = """
mixer: wide
inputs: {x: [T, D], n: {dims: [T], dtype: int64}}
map:
  digits: x + n % 1000
  placed: "x[T=n // 2 ** 30 % T]"
  largest: max(n, T) % 1009
outputs: {digits: [T, D], placed: [T, D], largest: []}
"""


@BACKENDS
def test_inputs_of_64_bits(backend: str) -> None:
    check(backend, WIDE, {"n": torch.randint(2**40, 2**41, (21,))})


DECLARED = """
mixer: declared
inputs: {x: [B, D], n: {dims: [B, D], dtype: int64}, m: {dims: [B, D], dtype: int8}}
map: {o: x + n % 1000 + m}
outputs: {o: [B, D]}
"""


@BACKENDS
def test_integers_are_read_in_the_dtype_that_their_input_declares(backend: str) -> None:
    n = torch.randint(-(2**30), 2**30, (2, 5))
    check(backend, DECLARED, {"n": n, "m": torch.randint(-9, 9, (2, 5), dtype=torch.int8)}, 1e-3)


def test_sums_of_integers_compile_for_a_gpu() -> None:
    compiles(SUMS)
