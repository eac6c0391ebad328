"""What is not a number stays one: a maximum over numbers of which one is a NaN is a NaN."""

import pytest
import torch

import mixc

SPEC = """\
mixer: largest
inputs: {x: [B, T, R, C]}
map:
  over_few: max(x, R)
  over_rows: max(x, T)
  least: min(x, T)
outputs: {over_few: [B, T, C], over_rows: [B, R, C], least: [B, R, C]}
"""


@pytest.mark.parametrize(("few", "channels"), [(1, 24), (5, 24), (3, 1)])
def test_a_maximum_keeps_a_nan(tmp_path, few, channels):
    path = tmp_path / "largest.yaml"
    path.write_text(SPEC)
    x = torch.randn(1, 70, few, channels)
    x[0, 3, 0, channels // 2] = x[0, 69, few - 1, 0] = torch.nan
    found = mixc.load(path, backend="cpu")(x)
    expected = mixc.load(path, backend="reference")(x.double())
    for own, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(own, wanted.float(), equal_nan=True)
