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


SUMS = """\
mixer: sums
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E]}
attention:
  over: J
  score: sum(q * k, D)
  output: {o: v}
  lse: l
outputs: {o: [B, I, E], l: [B, I]}
"""


@pytest.mark.parametrize(("rows", "keys"), [(40, 70), (2, 3000)])  # in one sweep, and in shares
def test_the_log_of_an_infinite_sum_is_infinite(tmp_path, rows, keys):
    path = tmp_path / "sums.yaml"
    path.write_text(SUMS)
    q, k, v = torch.randn(1, rows, 8), torch.randn(1, keys, 8), torch.randn(1, keys, 8)
    q[0, 0] = q[0, 0].abs() + 0.1
    q[0, 1] = -q[0, 1].abs() - 0.1  # -inf, which counts for nothing
    k[0, keys // 2] = torch.inf
    o, lse = mixc.load(path, backend="cpu")(q[:, :2], k, v)
    expected = torch.logsumexp(q[:, :2].double() @ k.double().mT, -1)
    assert expected.isposinf().tolist() == [[True, False]]
    torch.testing.assert_close(lse, expected.float())
    assert o[0, 0].isnan().all()
    assert o[0, 1].isfinite().all()
