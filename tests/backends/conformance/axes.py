"""Reductions, running values and combinations along an axis, and axes under another name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import torch
from torch import Tensor

from mixc.ir.tile import DType, Value

from .trial import BF16, BOOL, F16, F32, INT, LONG, Trial

_NEUTRAL = {"sum": 0.0, "prod": 1.0, "max": -math.inf, "min": math.inf, "any": False, "all": True}
_REDUCED: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "sum": lambda x, axis: x.sum(axis, dtype=x.dtype),
    "prod": lambda x, axis: x.prod(axis, dtype=x.dtype),
    "max": torch.amax,
    "min": torch.amin,
    "any": torch.any,
    "all": torch.all,
}
_RUNNING: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "sum": lambda x, axis: x.cumsum(axis, dtype=x.dtype),
    "prod": lambda x, axis: x.cumprod(axis, dtype=x.dtype),
    "max": lambda x, axis: x.cummax(axis).values,
}
_LOWEST = {INT: -(1 << 31), LONG: -(1 << 62)}


def _neutral(op: str, dtype: DType) -> float | int | bool:
    if dtype.is_float or op in ("any", "all", "sum", "prod"):
        number = _NEUTRAL[op]
        return number if dtype in (F32, BOOL) else int(number)
    return _LOWEST[dtype] if op == "max" else -1 - _LOWEST[dtype]


def _numbers(trial: Trial, axes: str, dtype: DType) -> Tensor:
    shape = [trial.sizes[d] for d in axes]
    if dtype is BOOL:
        return torch.rand(shape) < 0.5
    return torch.randn(shape) if dtype.is_float else torch.randint(-9, 9, shape)


def reductions(length: int) -> Trial:
    """Every operation over every axis, of tiles that hold its neutral element past the end."""
    trial = Trial({"B": 2, "T": length, "E": 5}, single="B")
    ops = [(op, F32) for op in ("sum", "prod", "max", "min")]
    ops += [(op, dtype) for op in ("sum", "max", "min") for dtype in (INT, LONG)]
    for op, dtype in (*ops, ("any", BOOL), ("all", BOOL)):
        for axes in ("BTE", "BT"):
            fill = _neutral(op, dtype)
            x, known = trial.load(axes, _numbers(trial, axes, dtype), dtype, fill)
            for axis in axes[1:]:
                made = trial.b.reduce(op, x, axis)
                left = axes.replace(axis, "")
                wanted = _REDUCED[op](known, axes.index(axis))
                trial.store(made, left, wanted, 4e-6, 4e-6)
    return trial


def reductions_of_comparisons(length: int) -> Trial:
    """Truth values that were computed, not loaded; whether any pair is, and how many are."""
    trial = Trial({"T": length, "E": 5})
    x, known = trial.load("TE")
    y, known_y = trial.load("T")
    less = trial.ew("lt", x, y, dtype=BOOL)
    e, t = trial.position("E"), trial.position("T")
    exists = trial.inside("TE", t, e)
    assert exists is not None
    seen = trial.ew("and", less, exists, dtype=BOOL)
    wanted = known < known_y[:, None]
    trial.store(trial.b.reduce("any", seen, "E"), "T", wanted.any(1))
    counted = trial.b.reduce("sum", trial.b.cast(seen, INT), "T")
    trial.store(counted, "E", wanted.sum(0).int())
    either = trial.ew("or", less, trial.ew("not", exists, dtype=BOOL), dtype=BOOL)
    every = trial.b.reduce("all", either, "E")
    trial.store(every, "T", wanted.all(1))
    return trial


def scans(length: int) -> Trial:
    """Running values in both directions, the position included."""
    trial = Trial({"T": length, "E": 5})
    for axes, op, dtype in (
        *product(("TE", "T"), ("sum", "prod", "max"), (F32,)),
        ("TE", "sum", INT),
        ("TE", "max", INT),
        ("T", "sum", LONG),
    ):
        values = _numbers(trial, axes, dtype)
        x, known = trial.load(axes, values, dtype, _neutral(op, dtype))
        for axis, reverse in product(axes, (False, True)):
            at = axes.index(axis)
            ordered = known.flip(at) if reverse else known
            wanted = _RUNNING[op](ordered, at)
            made = trial.b.scan(x, axis, reverse, op=op)
            trial.store(made, axes, wanted.flip(at) if reverse else wanted, 4e-6, 4e-6)
    return trial


def _affine(trial: Trial, left: tuple[Value, ...], right: tuple[Value, ...]) -> tuple[Value, ...]:
    """(a, x) before (c, y) is (a c, c x + y)."""
    (a, x), (c, y) = left, right
    return trial.ew("mul", a, c), trial.ew("add", trial.ew("mul", c, x), y)


def combinations(length: int) -> Trial:
    """s = a * s + x from both ends: it does not commute, so the order shows."""
    trial = Trial({"T": length, "E": 5})
    for axes in ("TE", "T"):
        shape = [trial.sizes[d] for d in axes]
        a, known_a = trial.load(axes, torch.rand(shape) * 2 - 1, fill=1)
        x, known_x = trial.load(axes)
        for over, reverse in product(axes, (False, True)):
            decays, states = trial.b.combine((a, x), over, partial(_affine, trial), reverse)
            at = axes.index(over)
            rows_a, rows_x = (k.movedim(at, 0) for k in (known_a, known_x))
            rows_a, rows_x = (k.flip(0) if reverse else k for k in (rows_a, rows_x))
            state, found = torch.zeros_like(rows_x[0]), []
            for decay, row in zip(rows_a, rows_x, strict=True):
                state = decay * state + row
                found.append(state)
            made = torch.stack(found).flip(0) if reverse else torch.stack(found)
            trial.store(states, axes, made.movedim(0, at), 1e-5, 1e-5)
            decay = rows_a.cumprod(0)
            decay = (decay.flip(0) if reverse else decay).movedim(0, at)
            trial.store(decays, axes, decay, 1e-5)
    return trial


def combinations_with_numbers(length: int) -> Trial:
    """A device function and a constant inside: logs of running sums, not below a floor."""
    trial = Trial({"T": length, "E": 3})
    x, known = trial.load("TE", fill=-math.inf)

    def together(left: tuple[Value, ...], right: tuple[Value, ...]) -> tuple[Value, ...]:
        both = trial.ew("logaddexp", left[0], right[0])
        return (trial.ew("max", both, trial.number(-0.5)),)

    (made,) = trial.b.combine([x], "T", together)
    so_far = [known[0]]
    for row in known[1:]:
        so_far.append(torch.logaddexp(so_far[-1], row).clamp(min=-0.5))
    trial.store(made, "TE", torch.stack(so_far), 4e-6, 4e-6)
    return trial


def renamed(length: int, dtype: DType = F32) -> Trial:
    """All pairs of rows; positions, products and a transpose by another name."""
    trial = Trial({"T": length, "S": length, "E": 5}, like={"S": "T"}, at_least=16)
    raw, known = trial.load("TE", dtype=dtype)
    x = trial.b.cast(raw, F32)
    g, known_g = trial.load("T")
    gap = trial.ew("sub", g, trial.b.rename(g, "T", "S"))
    trial.store(gap, "TS", known_g[:, None] - known_g)
    t = trial.position("T")
    later = trial.ew("lt", trial.b.rename(t, "T", "S"), t, dtype=BOOL)
    chosen = trial.ew("where", later, gap, trial.number(0.0))
    trial.store(chosen, "TS", (known_g[:, None] - known_g).tril(-1))
    pairs = trial.b.dot(raw, trial.b.rename(raw, "T", "S"), "E")
    trial.store(pairs, "TS", known @ known.T, 1e-5, 1e-5)
    doubled = trial.ew("mul", trial.b.rename(x, "T", "S"), trial.number(2.0))
    trial.store(doubled, "SE", 2 * known, 1e-5)
    return trial


AXES: Mapping[str, Callable[[], Trial]] = {
    **{f"reductions of {n} rows": partial(reductions, n) for n in (1, 39)},
    "reductions of comparisons": partial(reductions_of_comparisons, 13),
    **{f"scans of {n} rows": partial(scans, n) for n in (1, 39)},
    **{f"combinations of {n} rows": partial(combinations, n) for n in (1, 39)},
    "combinations with numbers": partial(combinations_with_numbers, 13),
    **{f"renamed axes of {n} rows": partial(renamed, n) for n in (1, 39)},
    "renamed axes, fp16": partial(renamed, 16, F16),
    "renamed axes, bf16": partial(renamed, 16, BF16),
}
