"""Loads and stores: masks, fills, places computed from data, and searches of sorted tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import torch

from mixc.ir.tile import DType

from .trial import BF16, BOOL, F16, F32, INT, LONG, Trial

_FILLS: Mapping[DType, float | int | bool] = {
    F32: -math.inf,
    F16: 0.5,
    BF16: math.nan,
    INT: -7,
    LONG: 1 << 40,
    BOOL: True,
}


def fills(block: int, length: int) -> Trial:
    """What a mask hides is the fill; the row before, with one for the first."""
    trial = Trial({"T": length, "E": 3}, {"T": block})
    one = trial.number(1, INT)
    for dtype, fill in _FILLS.items():
        values = torch.randint(0, 2, (length, 3)) if dtype is BOOL else torch.randn(length, 3) * 50
        name = trial.input("TE", values, dtype)
        known = trial.known(name)
        t, e = trial.position("T"), trial.position("E")
        exists = trial.inside("TE", t, e)
        assert exists is not None
        later = trial.ew("ge", t, trial.number(1, INT), dtype=BOOL)
        mask = trial.ew("and", exists, later, dtype=BOOL)
        before = trial.ew("sub", t, one, dtype=INT)
        shifted = trial.b.load(name, [("T", before), ("E", e)], mask, fill)
        first = torch.full((1, 3), fill, dtype=known.dtype)
        trial.store(shifted, "TE", torch.cat([first, known[:-1]]))
    return trial


def scattered(block: int, length: int) -> Trial:
    """Gathers by data, reversed rows, one element for all, and stores of what is broadcast."""
    trial = Trial({"B": 2, "T": length, "N": 5, "E": 3}, {"T": block}, single="B")
    table = trial.input("NE")
    known = trial.known(table)
    at, known_at = trial.load("BT", torch.randint(-2, 7, (2, length)), INT)
    e, zero, five = trial.position("E"), trial.number(0, INT), trial.number(5, INT)
    there = trial.ew(
        "and",
        trial.ew("ge", at, zero, dtype=BOOL),
        trial.ew("lt", at, five, dtype=BOOL),
        dtype=BOOL,
    )
    there = trial.ew("and", there, trial.inside("E", e) or there, dtype=BOOL)
    gathered = trial.b.load(table, [("N", at), ("E", e)], there, 2.5)
    held = (known_at >= 0) & (known_at < 5)
    wanted = torch.where(held[..., None], known[known_at.clamp(0, 4)], 2.5)
    trial.store(gathered, "BTE", wanted)
    entry = trial.b.load(table, [("N", trial.number(3, INT)), ("E", trial.number(2, INT))], None)
    row, known_row = trial.load("BT")
    scaled = trial.ew("mul", row, entry)
    trial.store(scaled, "BT", known_row * known[3, 2])
    trial.store(scaled, "BTE", (known_row * known[3, 2])[..., None].expand(2, length, 3))
    t, b = trial.position("T"), trial.position("B")
    last = trial.ew("sub", trial.size("T"), trial.number(1, INT), dtype=INT)
    back = trial.ew("sub", last, t, dtype=INT)
    name = trial.output("BT", known_row.flip(1))
    trial.b.store(name, [("B", b), ("T", back)], row, trial.inside("T", t))
    return trial


def hidden() -> Trial:
    """Loads and stores that one number allows, or rules out."""
    trial = Trial({"T": 23, "E": 3}, {"T": 16})
    name = trial.input("TE")
    t, e = trial.position("T"), trial.position("E")
    exists = trial.inside("TE", t, e)
    assert exists is not None
    first = trial.ew("lt", trial._starts["T"], trial.number(16, INT), dtype=BOOL)
    mask = trial.ew("and", first, exists, dtype=BOOL)
    loaded = trial.b.load(name, [("T", t), ("E", e)], mask, 3.0)
    early = (torch.arange(23) < 16)[:, None]
    trial.store(loaded, "TE", torch.where(early, trial.known(name), 3.0))
    output = trial.output("TE", trial.known(name))
    for holds in (first, trial.ew("not", first, dtype=BOOL)):
        allowed = trial.ew("and", holds, exists, dtype=BOOL)
        trial.b.store(output, [("T", t), ("E", e)], trial.read(name), allowed)
    return trial


def searches(length: int) -> Trial:
    """How many entries of a sorted table are below a number, or not above it."""
    trial = Trial({"Q": 6, "N": 2, "T": length}, single="QN")
    values = torch.randint(0, 9, (2, length)).sort().values
    table = trial.input("NT", values, INT)
    wanted, known_wanted = trial.load("Q", torch.tensor([-1, 0, 3, 5, 8, 20]), INT)
    for side in ("left", "right"):
        place = [("N", trial.position("N")), ("T", trial.number(0, INT))]
        found = trial.b.search(table, place, "T", trial.size("T"), wanted, side)
        counts = torch.searchsorted(
            values.int().contiguous(),
            known_wanted.expand(2, -1).contiguous(),
            out_int32=True,
            right=side == "right",
        )
        trial.store(found, "QN", counts.T)
    return trial


MEMORY: Mapping[str, Callable[[], Trial]] = {
    **{
        f"fills, {length} rows by {block}": partial(fills, block, length)
        for block, length in ((1, 4), (16, 39))
    },
    **{
        f"scattered, {length} rows by {block}": partial(scattered, block, length)
        for block, length in product((1, 64), (5,))
    },
    "hidden by a number": hidden,
    "search": partial(searches, 7),
    "search in one entry": partial(searches, 1),
}
