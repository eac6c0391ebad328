"""Keys that are found by halving ranges of them: HiP."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from .independent import assert_agrees, normal, sdpa

B, G, D, E, BLOCK = 2, 2, 4, 3, 4


def found(asks: Tensor, keys: Tensor, ranges: list[tuple[int, int]], keep: int) -> list[int]:
    """The keys that are left of ranges, halved until each has one; empty ones are none."""
    ranges = [(low, high) for low, high in ranges if high > low]
    while any(high - low > 1 for low, high in ranges):
        halves = []
        for low, high in ranges:
            half = low + -(-(high - low) // 2)
            halves += [part for part in ((low, half), (half, high)) if part[1] > part[0]]
        likes = [float((asks @ keys[low]).max()) for low, _ in halves]
        best = sorted(range(len(halves)), key=lambda place: -likes[place])
        ranges = [halves[place] for place in best[:keep]]
    return [low for low, _ in ranges]


@pytest.mark.parametrize("heads", [2, 6])
@pytest.mark.parametrize(
    ("blocks", "keep", "window", "sink"), [(10, 3, 4, 2), (7, 5, 3, 0), (6, 16, 8, 1), (2, 2, 9, 3)]
)
def test_hip_attends_what_is_left_of_halved_ranges(
    blocks: int, keep: int, window: int, sink: int, heads: int
) -> None:
    length = blocks * BLOCK
    x = {"q": normal(B, heads, length, D, grad=True), "k": normal(B, G, length, D, grad=True)}
    x["v"] = normal(B, G, length, E, grad=True)
    seen = torch.zeros(B, heads, length, length, dtype=torch.bool)
    few = 0
    for b in range(B):
        for h in range(heads):
            for first in range(0, length, BLOCK):
                count = max(0, first - window - sink)
                edges = [sink + count * place // keep for place in range(keep + 1)]
                rows = slice(first, first + BLOCK)
                keys = x["k"][b, h // (heads // G)].detach()
                own = found(x["q"][b, h, rows].detach(), keys, [*pairwise(edges)], keep)
                assert len(own) == min(count, keep) == len({*own})
                few += len(own) < count
                seen[b, h, rows, own] = True
                seen[b, h, rows, :sink] = True
                seen[b, h, rows, max(first - window, 0) :] = True
    assert (few > 0) == (keep < 16 and blocks > 2)
    seen &= torch.ones(length, length).tril().bool()
    o = sdpa(x["q"], x["k"], x["v"], seen)
    sizes = {"block": BLOCK, "keep": keep, "window": window, "sink": sink}
    assert_agrees("hip", x, {"o": o}, sizes)
