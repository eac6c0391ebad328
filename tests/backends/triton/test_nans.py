"""A maximum over numbers of which one is a NaN is a NaN, in Triton's text too."""

from __future__ import annotations

from pathlib import Path

import torch

from mixc.api import load

SPEC = """
mixer: largest
inputs: {x: [B, T, C], w: [C], n: {dims: [B, T, C], dtype: int32}}
map:
  largest: max(x * w, C)
  least: min(x, T)
  any: any(x > 2.0, C)
  count: max(n, C)
  whole: max(x, C, T)
  kept: relu(x)
outputs: {largest: [B, T], least: [B, C], any: [B, T], count: [B, T], whole: [B], kept: [B, T, C]}
"""


def test_a_maximum_keeps_a_nan(tmp_path: Path) -> None:
    path = tmp_path / "largest.yaml"
    path.write_text(SPEC)
    x, w = torch.randn(2, 70, 24), torch.rand(24)
    x[0, 3, 1] = torch.nan
    n = torch.randint(-9, 9, (2, 70, 24), dtype=torch.int32)
    found = load(path, backend="interpreter")(x, w, n)
    expected = load(path, backend="reference")(x, w, n)
    for name, own, wanted in zip(found._fields, found, expected, strict=True):
        torch.testing.assert_close(
            own.to(wanted.dtype), wanted, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}"
        )
