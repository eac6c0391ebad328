"""Errors of the vector functions, in units of the last place, against float64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mixc.backends.cpu.build import build, find_compiler
from mixc.backends.cpu.emit import runtime_text

COUNT = 1 << 16
Exact = Callable[[Tensor], Tensor]
INF = float("inf")


def _wide(low: float, high: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return low + (high - low) * torch.rand(COUNT, generator=generator)


def _magnitudes() -> Tensor:
    """Positive numbers of every exponent."""
    return torch.exp2(_wide(-126.0, 127.9))


# name: (points, exact, largest error in ulp)
FUNCTIONS: dict[str, tuple[Tensor, Exact, float]] = {
    "exp2": (_wide(-125.9, 127.9), torch.exp2, 2.0),
    "exp": (_wide(-87.0, 88.0), torch.exp, 2.0),
    "log": (_magnitudes(), torch.log, 2.0),
    "log2": (_magnitudes(), torch.log2, 2.0),
    "sigmoid": (_wide(-80.0, 80.0), torch.sigmoid, 3.0),
    "tanh": (_wide(-10.0, 10.0), torch.tanh, 3.0),
    "log1p": (_wide(-0.99, 20.0), torch.log1p, 4.0),
    "softplus": (_wide(-60.0, 60.0), lambda x: torch.logaddexp(x, torch.zeros_like(x)), 4.0),
    "silu": (_wide(-60.0, 60.0), torch.nn.functional.silu, 4.0),
    "expm1": (_wide(-20.0, 88.6), torch.expm1, 2.0),
    "erf": (_wide(-5.0, 5.0), torch.erf, 2.0),
    "sqrt": (_magnitudes(), torch.sqrt, 1.0),
    "rsqrt": (_magnitudes(), torch.rsqrt, 2.0),
    "acos": (_wide(-1.0, 1.0), torch.acos, 2.0),
}
NAMES = [*FUNCTIONS, "sin", "cos"]


@pytest.fixture(scope="module")
def functions() -> ctypes.CDLL:
    lanes = find_compiler().target.lanes
    loops = [
        f'extern "C" void each_{name}(const float* x, float* y, long n) '
        "{ for (long i = 0; i < n; i += mx::LANES) "
        f"mx::store(y + i, mx::{name}(mx::load(x + i))); }}"
        for name in NAMES
    ]
    source = "\n".join([f"#define MIXC_LANES {lanes}", runtime_text(), *loops])
    return ctypes.CDLL(str(build(source, "functions")))


def apply(library: ctypes.CDLL, name: str, x: Tensor) -> Tensor:
    x = torch.cat([x, torch.zeros(-len(x) % 64)])
    y = torch.empty_like(x)
    call = getattr(library, f"each_{name}")
    call(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()), ctypes.c_long(len(x)))
    return y


def ulps(found: Tensor, exact: Tensor) -> float:
    spacing = torch.exp2(torch.floor(torch.log2(exact.abs().clamp_min(2.0**-126))) - 23)
    return float(((found.double() - exact).abs() / spacing).max())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_is_bounded(functions: ctypes.CDLL, name: str) -> None:
    x, exact, limit = FUNCTIONS[name]
    found = apply(functions, name, x)[: len(x)]
    assert ulps(found, exact(x.double())) <= limit


@pytest.mark.parametrize("name", ["sin", "cos"])
@pytest.mark.parametrize("largest", [4.0, 1e6])
def test_angles_of_any_size(functions: ctypes.CDLL, name: str, largest: float) -> None:
    x = _wide(-largest, largest)
    exact = getattr(torch, name)(x.double())
    found = apply(functions, name, x)[: len(x)]
    assert float((found.double() - exact).abs().max()) <= 1.2e-7


EDGES: list[tuple[str, float, float]] = [
    ("exp2", -INF, 0.0),
    ("exp2", -1e30, 0.0),
    ("exp2", INF, INF),
    ("exp2", 1e30, INF),
    ("exp2", 0.0, 1.0),
    ("exp2", -149.0, 2.0**-149),
    ("exp2", -130.0, 2.0**-130),
    ("exp2", 127.0, 2.0**127),
    ("exp2", 128.0, INF),
    ("exp2", -151.0, 0.0),
    ("exp", -INF, 0.0),
    ("exp", -1000.0, 0.0),
    ("exp", INF, INF),
    ("exp", 1000.0, INF),
    ("log", 0.0, -INF),
    ("log", INF, INF),
    ("log", -1.0, float("nan")),
    ("log2", 0.0, -INF),
    ("log2", 8.0, 3.0),
    ("tanh", -INF, -1.0),
    ("tanh", INF, 1.0),
    ("sigmoid", -INF, 0.0),
    ("sigmoid", INF, 1.0),
    ("softplus", -INF, 0.0),
    ("softplus", INF, INF),
    ("expm1", -INF, -1.0),
    ("expm1", -0.0, -0.0),
    ("expm1", 1e-30, 1e-30),
    ("expm1", 1000.0, INF),
    ("expm1", INF, INF),
    ("erf", -INF, -1.0),
    ("erf", INF, 1.0),
    ("erf", 1e30, 1.0),
]


@pytest.mark.parametrize(("name", "x", "wanted"), EDGES)
def test_edges(functions: ctypes.CDLL, name: str, x: float, wanted: float) -> None:
    found = apply(functions, name, torch.tensor([x]))[:1]
    torch.testing.assert_close(found, torch.tensor([wanted]), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_not_a_number_stays_one(functions: ctypes.CDLL, name: str) -> None:
    assert apply(functions, name, torch.tensor([float("nan")]))[0].isnan()
