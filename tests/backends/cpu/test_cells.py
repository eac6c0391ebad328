"""Recurrent cells natively: blocks of the batch against weights, of any size."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower

GATES = {"lstm": 4, "gru": 3, "elman": 1}
LIMITS = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


@cache
def runner(name: str) -> CpuRunner:
    return CpuRunner(load_file(find_spec(name)), lower)


@pytest.mark.parametrize(
    ("name", "size", "batch", "dtype"),
    [
        ("elman", 16, 17, torch.float32),
        ("elman", 40, 1, torch.bfloat16),
        ("lstm", 40, 1, torch.float32),
        ("lstm", 40, 3, torch.float32),
        ("lstm", 40, 16, torch.float32),
        ("lstm", 40, 17, torch.float32),
        ("gru", 64, 3, torch.bfloat16),
        ("gru", 128, 1, torch.float32),
        ("lstm", 256, 16, torch.float32),
        ("lstm", 256, 17, torch.bfloat16),
    ],
)
def test_agrees_with_the_reference(name: str, size: int, batch: int, dtype: torch.dtype) -> None:
    sizes = {"B": batch, "T": 5, "H": 2, "K": GATES[name], "D": size, "P": size}
    inputs = sample_inputs(runner(name).mixer, sizes, dtype, strided=batch == 3)
    inputs["R"] = inputs["R"] * size**-0.5
    expected = run(runner(name).mixer, {n: tensor.double() for n, tensor in inputs.items()})
    limit = LIMITS[dtype]
    for output, made in runner(name)(inputs).items():
        torch.testing.assert_close(made.double(), expected[output], rtol=limit, atol=limit)
