"""Sine and cosine as kernels compute them, against float64."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from mixc.backends.triton.device_functions import DEVICE_FUNCTIONS

KERNEL = """
@triton.jit
def waves(x, sines, cosines, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    angle = tl.load(x + at)
    tl.store(sines + at, _sin(angle))
    tl.store(cosines + at, _cos(angle))
"""


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs the interpreter")
@pytest.mark.parametrize(("largest", "limit"), [(1.0, 2e-7), (1e4, 2e-7), (1e5, 2e-6)])
def test_waves_are_those_of_float64(tmp_path: Path, largest: float, limit: float) -> None:
    functions = [f"@triton.jit{DEVICE_FUNCTIONS[name]}" for name in ("sin", "cos")]
    source = tmp_path / "waves.py"
    source.write_text("\n".join(["import triton, triton.language as tl", *functions, KERNEL]))
    spec = importlib.util.spec_from_file_location("waves", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x = torch.linspace(-largest, largest, 1024)
    sines, cosines = torch.full([1024], torch.nan), torch.full([1024], torch.nan)
    module.waves[(1,)](x, sines, cosines, SIZE=1024)
    assert (sines - x.double().sin()).abs().max() < limit
    assert (cosines - x.double().cos()).abs().max() < limit
