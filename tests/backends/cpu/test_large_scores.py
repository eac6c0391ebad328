"""Scores of thousands: the maximum comes off before anything is rounded to another base."""

import torch

import mixc


def test_no_digit_is_lost() -> None:
    """All scores are near 10,000 and exact in float32, so that exp is all that can be wrong."""
    generator = torch.Generator().manual_seed(0)
    q = torch.full((1, 2, 40, 16), 25.0)
    k = 25.0 + torch.randint(-3, 4, (1, 2, 40, 16), generator=generator) / 64
    v = torch.randn(1, 2, 40, 16, generator=generator)
    found = mixc.load("causal", backend="cpu", scale=1.0)(q, k, v)
    wide = (t.double() for t in (q, k, v))
    wanted = mixc.load("causal", backend="reference", scale=1.0)(*wide)
    assert float((found - wanted).abs().max()) < 3e-6
