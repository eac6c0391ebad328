"""Products of tiles, and systems of equations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from mixc.ir.tile import DType

from .trial import BF16, F16, F32, Trial


def dots(length: int, dtype: DType) -> Trial:
    """Over either axis of either side, with and without what it is added to, one after another."""
    trial = Trial({"T": length, "D": 24, "E": 17}, at_least=16)
    a, known_a = trial.load("TD", dtype=dtype)
    b, known_b = trial.load("DE", dtype=dtype)
    c, known_c = trial.load("TE", dtype=dtype)
    acc, known_acc = trial.load("TE")
    near = {"relative": 1e-5, "absolute": 2e-5}
    product = trial.b.dot(a, b, "D")
    trial.store(product, "TE", known_a @ known_b, **near)
    trial.store(trial.b.dot(b, a, "D", acc), "TE", known_acc + known_a @ known_b, **near)
    trial.store(trial.b.dot(a, c, "T"), "DE", known_a.T @ known_c, **near)
    trial.store(trial.b.dot(c, b, "E"), "TD", known_c @ known_b.T, **near)
    start = trial.b.constant(0.25, F32, frozenset("DE"))
    trial.store(trial.b.dot(a, c, "T", start), "DE", 0.25 + known_a.T @ known_c, **near)
    return trial


def masked_dots(dtype: DType) -> Trial:
    """What a 0 hides is not seen, be it infinite or no number, by which side ever."""
    trial = Trial({"T": 19, "D": 16, "E": 24}, at_least=16)
    few_w, few_u = (torch.randn(n, m) * (torch.rand(n, m) < 0.3) for n, m in ((19, 16), (16, 24)))
    odd_x, odd_y = torch.randn(16, 24), torch.randn(19, 16)
    for n, number in enumerate((math.nan, math.inf, -math.inf)):
        odd_x[5 * n, n::4] = number
        odd_y[n::5, 5 * n] = number
    w, known_w = trial.load("TD", few_w, dtype)
    x, known_x = trial.load("DE", odd_x, dtype)
    u, known_u = trial.load("DE", few_u, dtype)
    y, known_y = trial.load("TD", odd_y, dtype)
    acc = trial.b.constant(0.5, F32, frozenset("TE"))
    first = trial.b.dot(w, x, "D", acc, masked=True)
    trial.store(first, "TE", 0.5 + _masked(known_w, known_x), 1e-5, 2e-5)
    second = trial.b.dot(u, y, "D", masked=True)
    trial.store(second, "TE", _masked(known_u.T, known_y.T).T, 1e-5, 2e-5)
    return trial


def _masked(a: Tensor, b: Tensor) -> Tensor:
    pairs = a[:, :, None] * b
    return torch.where(a[:, :, None] == 0, 0.0, pairs).sum(1)


def substitutions(length: int) -> Trial:
    """One right-hand side and many; what lies on and above the diagonal is not read."""
    trial = Trial({"T": length, "S": length, "E": 5}, like={"S": "T"}, at_least=16)
    lower = torch.randn(length, length).tril(-1) / length**0.5
    above = torch.full((length, length), 1e30).triu()
    a, _ = trial.load("TS", lower + above)
    system = torch.eye(length, dtype=torch.float64) - lower.double()
    for dims in ("TE", "T"):
        b, known = trial.load(dims)
        right = known if known.ndim == 2 else known[:, None]
        wanted = torch.linalg.solve_triangular(system, right, upper=False).view(known.shape)
        trial.store(trial.b.substitute(a, b, "T", "S"), dims, wanted, 1e-5, 1e-5)
    same, known = trial.load("E")
    wanted = torch.linalg.solve(system, known.expand(length, -1))
    trial.store(trial.b.substitute(a, same, "T", "S"), "TE", wanted, 1e-5, 1e-5)
    return trial


def systems(length: int) -> Trial:
    """Pivots lie off the diagonal; past the size the solution is 0, and may be summed."""
    trial = Trial({"D": length, "P": length, "E": 5}, like={"P": "D"}, at_least=16)
    matrix = torch.randn(length, length) / length + 2 * torch.eye(length).flip(0)
    a, known_a = trial.load("DP", matrix)
    for dims in ("DE", "D"):
        b, known = trial.load(dims)
        wanted = torch.linalg.solve(known_a, known)
        found = trial.b.solve(a, b, "D", "P")
        trial.store(found, dims.replace("D", "P"), wanted, 2e-5, 2e-5)
        if dims == "DE":
            trial.store(trial.b.reduce("sum", found, "P"), "E", wanted.sum(0), 2e-5, 2e-5)
    return trial


PRODUCTS: Mapping[str, Callable[[], Trial]] = {
    **{f"dots of {n} rows": partial(dots, n, F32) for n in (1, 39)},
    "dots, fp16": partial(dots, 39, F16),
    "dots, bf16": partial(dots, 39, BF16),
    "masked dots": partial(masked_dots, F32),
    "masked dots, fp16": partial(masked_dots, F16),
    **{f"substitutions of {n} rows": partial(substitutions, n) for n in (1, 16, 39)},
    **{f"systems of {n} rows": partial(systems, n) for n in (1, 13)},
}
