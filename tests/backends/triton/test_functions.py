"""Elementwise functions as emitted, under the interpreter, against torch in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.backends.triton.run import TritonRunner
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

# Largest error relative to the result, and absolute beside it, in units of float32's 6e-8.
FUNCTIONS = {
    "exp": (8, 0),
    "exp2": (4, 0),
    "expm1": (8, 0),
    "log": (4, 2),
    "log1p": (8, 0),
    "sqrt": (2, 0),
    "rsqrt": (4, 0),
    "tanh": (8, 0),
    "sigmoid": (8, 0),
    "logsigmoid": (8, 0),
    "softplus": (8, 0),
    "gelu": (4, 20),
    "gelu_tanh": (16, 1),
    "silu": (8, 0),
    "elu": (4, 4),
    "erf": (8, 0),
    "sin": (4, 4),
    "cos": (4, 4),
    "acos": (8, 2),
    "relu": (0, 0),
    "abs": (0, 0),
    "sign": (0, 0),
    "floor": (0, 0),
    "ceil": (0, 0),
    "round": (0, 0),
}
UNIT = 2.0**-24


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXC_CACHE", str(tmp_path))


def kernels(text: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return TritonRunner(load_text(text), lower)(tensors)


def places(fn: str) -> Tensor:
    """Where a function is tried: near 0, at its bends, and far out."""
    near = torch.logspace(-20, 0, 41, dtype=torch.float64)
    far = torch.linspace(1, 80, 80, dtype=torch.float64)
    bends = torch.tensor([0.0, 0.1, 0.2499, 0.25, 0.5, 1.5, 2.5, 9.0, 87.0])
    positive = torch.cat([near, far, bends]).float()
    if fn in ("log", "sqrt", "rsqrt", "log1p"):
        return positive[positive > 0]
    if fn == "acos":
        return torch.linspace(-1, 1, 101)
    return torch.cat([positive, -positive])


@pytest.mark.parametrize("fn", FUNCTIONS)
def test_functions_are_accurate(fn: str) -> None:
    text = f"mixer: m\ninputs: {{x: [T]}}\nstages:\n  - map: {{y: {fn}(x)}}\noutputs: {{y: [T]}}"
    x = places(fn)
    found = kernels(text, {"x": x})["y"].double()
    wanted = run(load_text(text), {"x": x.double()})["y"]
    relative, absolute = FUNCTIONS[fn]
    limit = UNIT * (relative * wanted.abs() + absolute) + 2.0**-126
    same = found == wanted.float().double()  # infinite where float32 is
    worst = torch.where(same, 0.0, (found - wanted).abs() / limit.clamp(min=1e-300))
    assert bool((worst <= 1).all()), (fn, float(x[worst.argmax()]), float(worst.max()))


def test_functions_of_two() -> None:
    a, b = torch.meshgrid(torch.arange(-7, 8), torch.tensor([-3, -2, -1, 1, 2, 5]), indexing="ij")
    text = """
mixer: m
inputs: {a: {dims: [T], dtype: int32}, b: {dims: [T], dtype: int32}, x: [T], y: [T]}
stages:
  - map:
      divided: a // b
      rest: a % b
      half: a // 2
      last: a % 4
      power: abs(x) ** y
      cube: x ** 3
      signed: x ** (1.0 * b)
      together: logaddexp(x, y)
outputs:
  divided: [T]
  rest: [T]
  half: [T]
  last: [T]
  power: [T]
  cube: [T]
  signed: [T]
  together: [T]
"""
    a, b = a.reshape(-1).int(), b.reshape(-1).int()
    x, y = a.float() / 2, b.float() * 1.5
    tensors = {"a": a, "b": b, "x": x, "y": y}
    found = kernels(text, tensors)
    wanted = run(
        load_text(text), {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    )
    for name in ("divided", "rest", "half", "last"):
        assert torch.equal(found[name].long(), wanted[name].long()), name
    for name in ("power", "cube", "signed", "together"):
        torch.testing.assert_close(found[name].double(), wanted[name], rtol=2e-6, atol=1e-6)


def test_infinite_arguments() -> None:
    text = """
mixer: m
inputs: {x: [T]}
stages:
  - map: {a: tanh(x), b: sigmoid(x), c: softplus(x), d: exp(x)}
  - map: {e: "logaddexp(x, x)", f: logsigmoid(x)}
outputs: {a: [T], b: [T], c: [T], d: [T], e: [T], f: [T]}
"""
    x = torch.tensor([float("inf"), float("-inf"), 1000.0, -1000.0])
    found, wanted = kernels(text, {"x": x}), run(load_text(text), {"x": x.double()})
    for name, value in wanted.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-6, atol=0)


SORTED = """
mixer: m
inputs:
  q: [I, D]
  k: [J, D]
  row: {dims: [I], dtype: int32, sorted: true}
  column: {dims: [J], dtype: int32, sorted: true}
attention:
  over: J
  score: sum(q * k, D)
  mask: row == column
  normalize: softmax
  output: {o: k}
outputs: {o: [I, D]}
"""


@pytest.mark.parametrize("columns", [0, 1, 5, 40])
def test_sorted_tables_are_searched(columns: int) -> None:
    tensors = {
        "q": torch.randn(20, 16),
        "k": torch.randn(columns, 16),
        "row": torch.randint(-1, 6, (20,), dtype=torch.int32).sort().values,
        "column": torch.randint(0, 5, (columns,), dtype=torch.int32).sort().values,
    }
    found = kernels(SORTED, tensors)["o"]
    wanted = run(load_text(SORTED), tensors, dtype=torch.float64)["o"]
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


SEARCH = """
import triton
import triton.language as tl


@triton.jit{function}


@triton.jit
def find(out, table, stride, size, value, RIGHT: tl.constexpr):
    tl.store(out, _search_sorted(table, stride, size, value, RIGHT))
"""


def test_search_counts_what_is_below() -> None:
    from mixc.backends.triton.device_functions import DEVICE_FUNCTIONS
    from mixc.backends.triton.run import import_source

    source = SEARCH.format(function=DEVICE_FUNCTIONS["search"].rstrip())
    find = import_source(source, "search").find
    for table in ([], [3], [0, 0, 2, 2, 2, 5], list(range(17))):
        for stride in (1, 3):
            padded = torch.zeros(max(1, len(table) * stride), dtype=torch.int32)
            padded[: len(table) * stride : stride] = torch.tensor(table, dtype=torch.int32)
            for value in (-1, 0, 2, 3, 20):
                for right in (False, True):
                    out = torch.full([1], -1, dtype=torch.int32)
                    find[(1,)](out, padded, stride, len(table), value, RIGHT=right)
                    below = [t <= value if right else t < value for t in table]
                    assert int(out) == sum(below), (table, stride, value, right)
