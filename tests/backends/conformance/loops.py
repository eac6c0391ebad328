"""Loops: what is carried, from where to where they go, and loops inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

from mixc.ir.tile import Value

from .trial import BOOL, F32, INT, Trial


def _rows(trial: Trial, name: str, start: Value, fill: float = 0.0) -> Value:
    """The rows of an input [T, E] that begin at ``start``."""
    t, e = trial.tile("T", start), trial.position("E")
    return trial.b.load(name, [("T", t), ("E", e)], trial.inside("TE", t, e), fill)


def sums(block: int, length: int) -> Trial:
    """Blocks one after another: a sum, a maximum and a count that are carried side by side."""
    trial = Trial({"T": length, "E": 5}, {"T": block})
    trial.b.grid.clear()
    name = trial.input("TE")
    known, zero = trial.known(name), trial.number(0, INT)
    carried = [
        ("total", trial.b.constant(0.0, F32, frozenset("E"))),
        ("top", trial.b.constant(-float("inf"), F32, frozenset("E"))),
        ("count", zero),
    ]
    with trial.b.loop("start", zero, trial.size("T"), "BLOCK_T", carried) as turn:
        total, top, count = turn.carried
        here = trial.b.reduce("sum", _rows(trial, name, turn.variable), "T")
        most = trial.b.reduce("max", _rows(trial, name, turn.variable, -float("inf")), "T")
        turn.yields = [
            trial.ew("add", total, here),
            trial.ew("max", top, most),
            trial.ew("add", count, trial.number(1, INT), dtype=INT),
        ]
    total, top, count = turn.results
    trial.store(total, "E", known.sum(0), 4e-6, 4e-6)
    trial.store(top, "E", known.amax(0) if length else torch.full((5,), -torch.inf).double())
    turns = torch.tensor(-(-length // block), dtype=torch.int32)
    trial.store(count, "", turns)
    return trial


def exchanged() -> Trial:
    """All is handed over at once: (x, y) becomes (y, x - y / 2), and a step is a number."""
    trial = Trial({"B": 4, "E": 5}, single="B")
    x, known_x = trial.load("BE")
    y, known_y = trial.load("BE")
    first, _ = trial.load("B", torch.ones(4), INT)
    with trial.b.loop("n", first, trial.number(9, INT), 3, [("x", x), ("y", y)]) as turn:
        one, other = turn.carried
        turn.yields = [other, trial.ew("sub", one, trial.ew("mul", other, trial.number(0.5)))]
    for _ in (1, 4, 7):
        known_x, known_y = known_y, known_x - known_y * 0.5
    for value, wanted in zip(turn.results, (known_x, known_y), strict=True):
        trial.store(value, "BE", wanted, 4e-6, 4e-6)
    return trial


def without_turns() -> Trial:
    """As many turns as the data says: none or fewer give what came in."""
    trial = Trial({"B": 5, "E": 3}, single="B")
    x, known = trial.load("BE")
    stop, known_stop = trial.load("B", torch.tensor([-3, 0, 1, 2, 7]), INT)
    with trial.b.loop("n", trial.number(1, INT), stop, 1, [("x", x)]) as turn:
        turn.yields = [trial.ew("mul", turn.carried[0], trial.number(2.0))]
    turns = (known_stop - 1).clamp(min=0)
    trial.store(turn.results[0], "BE", known * 2.0 ** turns[:, None])
    return trial


def nested(block: int, length: int) -> Trial:
    """For each row the sum of what comes before it, from an inner loop as long as the outer says;
    rows are stored inside."""
    trial = Trial({"T": length, "S": length, "E": 5}, {"S": block}, single="T")
    trial.b.grid.clear()
    name = trial.input("TE")
    known = trial.known(name)
    copy = trial.input("SE", known)
    output = trial.output("TE", known.cumsum(0) - known, relative=4e-6, absolute=4e-6)
    zero, e = trial.number(0, INT), trial.position("E")
    nothing = trial.b.constant(0.0, F32, frozenset("E"))
    count = [("rows", zero)]
    with trial.b.loop("t", zero, trial.size("T"), 1, count) as outer:
        with trial.b.loop("s", zero, outer.variable, "BLOCK_S", [("sum", nothing)]) as inner:
            s = trial.tile("S", inner.variable)
            before = trial.ew("lt", s, outer.variable, dtype=BOOL)
            mask = trial.ew("and", before, trial.inside("E", e) or before, dtype=BOOL)
            rows = trial.b.load(copy, [("S", s), ("E", e)], mask)
            inner.yields = [trial.ew("add", inner.carried[0], trial.b.reduce("sum", rows, "S"))]
        trial.b.store(
            output, [("T", outer.variable), ("E", e)], inner.results[0], trial.inside("E", e)
        )
        outer.yields = [trial.ew("add", outer.carried[0], trial.number(1, INT), dtype=INT)]
    trial.store(outer.results[0], "", torch.tensor(length, dtype=torch.int32))
    return trial


def products(block: int) -> Trial:
    """Products added up block by block, as attention and chunks do."""
    trial = Trial({"T": 37, "D": 16, "E": 16}, {"T": block})
    trial.b.grid.clear()
    x, y = trial.input("TD"), trial.input("TE")
    zero = trial.number(0, INT)
    state = trial.b.constant(0.0, F32, frozenset("DE"))
    with trial.b.loop("start", zero, trial.size("T"), "BLOCK_T", [("state", state)]) as turn:
        t, d, e = trial.tile("T", turn.variable), trial.position("D"), trial.position("E")
        left = trial.b.load(x, [("T", t), ("D", d)], trial.inside("TD", t, d))
        right = trial.b.load(y, [("T", t), ("E", e)], trial.inside("TE", t, e))
        turn.yields = [trial.b.dot(left, right, "T", turn.carried[0])]
    trial.store(turn.results[0], "DE", trial.known(x).T @ trial.known(y), 1e-5, 1e-5)
    return trial


LOOPS: Mapping[str, Callable[[], Trial]] = {
    **{
        f"sums of {length} rows by {block}": partial(sums, block, length)
        for block, length in ((1, 3), (16, 39), (64, 13), (16, 0))
    },
    "handed over at once": exchanged,
    "without turns": without_turns,
    "nested, by 1": partial(nested, 1, 5),
    "nested, by 16": partial(nested, 16, 21),
    "products by 16": partial(products, 16),
    "products by 64": partial(products, 64),
}
