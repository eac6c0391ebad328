"""Caches of which a part is read: SirLLM's surprising tokens."""

from __future__ import annotations

import math

import pytest
import torch

from .independent import assert_agrees, normal, rotate

B, H, D, E = 2, 4, 6, 5


@pytest.mark.parametrize("length", [3, 21])
def test_sir_keeps_the_first_the_surprising_and_the_newest(length: int) -> None:
    first, keep, room, groups, rows = 2, 4, 9, 2, 3
    x = {"q": normal(B, H, rows, D, grad=True), "k": normal(B, groups, length, D, grad=True)}
    x |= {"v": normal(B, groups, length, E, grad=True), "surprisal": normal(B, length)}
    outs = []
    for b in range(B):
        told = set(range(min(first, length)))
        by_surprisal = x["surprisal"][b].argsort(descending=True).tolist()
        told |= set([j for j in by_surprisal if j not in told][:keep])
        newest = [j for j in reversed(range(length)) if j not in told]
        stays = sorted(told | set(newest[: room - len(told)]))
        slots = torch.arange(len(stays) + rows, dtype=torch.float64)
        k = rotate(x["k"][b][:, stays], slots[: len(stays)]).repeat_interleave(H // groups, 0)
        q = rotate(x["q"][b], slots[len(stays) :])
        v = x["v"][b][:, stays].repeat_interleave(H // groups, 0)
        outs.append((q @ k.mT / math.sqrt(D)).softmax(-1) @ v)
    params = {"first": first, "keep": keep, "room": room}
    assert_agrees("sir", x, {"o": torch.stack(outs)}, params)
