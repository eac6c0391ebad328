"""Every elementwise function on every type it has, and casts, at blocks of 1, 16 and 64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mixc.ir.node import AS_FLOAT, ELEMENTWISE, TRANSCENDENTAL
from mixc.ir.tile import DType, Value

from .trial import BF16, BOOL, F16, F32, INT, LONG, TORCH, Trial

# What functions mean that torch calls otherwise.
_MEANINGS: Mapping[str, Callable[..., Tensor]] = {
    "neg": torch.neg,
    "min": torch.minimum,
    "max": torch.maximum,
    "floordiv": torch.floor_divide,
    "mod": torch.remainder,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "not": torch.logical_not,
    "detach": torch.clone,
    "logsigmoid": functional.logsigmoid,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "elu": functional.elu,
}
_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_POSITIVE = ("log", "log2", "sqrt", "rsqrt")
_OF_ALL_NUMBERS = ("add", "sub", "mul", "min", "max")
_OF_ONE_NUMBER = ("neg", "abs", "sign", "relu", "detach")
_TO_WHOLE = ("floor", "ceil", "round")
# Those that have lines of their own below; a new function of the language has to be put somewhere.
COVERED = {
    *TRANSCENDENTAL, *_COMPARISONS, *_OF_ALL_NUMBERS, *_OF_ONE_NUMBER, *_TO_WHOLE,
    "div", "floordiv", "mod", "pow", "and", "or", "not", "where",
}  # fmt: skip


def meaning(fn: str) -> Callable[..., Tensor]:
    """What a function is, by torch."""
    return _MEANINGS[fn] if fn in _MEANINGS else getattr(torch, fn)


def _trial(block: int) -> Trial:
    """Rows dealt out by the grid, that no block but 1 divides, and columns that no power has."""
    return Trial({"T": 5 if block == 1 else 77, "E": 3}, {"T": block})


def _spread(trial: Trial, low: float, high: float) -> Tensor:
    count = trial.sizes["T"] * trial.sizes["E"]
    points = torch.linspace(low, high, count)[torch.randperm(count)]
    return points.view(trial.sizes["T"], trial.sizes["E"])


def _whole(trial: Trial, largest: int) -> Tensor:
    shape = trial.sizes["T"], trial.sizes["E"]
    return torch.randint(-largest, largest + 1, shape)


def reals(block: int) -> Trial:
    """Functions of real numbers."""
    trial = _trial(block)
    assert ELEMENTWISE.keys() == COVERED
    x, known_x = trial.load("TE", _spread(trial, -6, 6))
    y, known_y = trial.load("TE", _spread(trial, -3, 3))
    p, known_p = trial.load("TE", _spread(trial, 0.01, 9), fill=1)
    unit, known_unit = trial.load("TE", _spread(trial, -1, 1))
    row, known_row = trial.load("T")
    for fn in sorted(TRANSCENDENTAL - {"logaddexp"}):
        argument, known = (p, known_p) if fn in (*_POSITIVE, "log1p") else (x, known_x)
        argument, known = (unit, known_unit) if fn == "acos" else (argument, known)
        trial.store(trial.ew(fn, argument), "TE", meaning(fn)(known), 4e-6, 2e-6)
    for fn in (*_OF_ONE_NUMBER, *_TO_WHOLE):
        trial.store(trial.ew(fn, x), "TE", meaning(fn)(known_x))
    for fn in (*_OF_ALL_NUMBERS, "logaddexp"):
        trial.store(trial.ew(fn, x, y), "TE", meaning(fn)(known_x, known_y))
        mixed = trial.ew(fn, row, y)  # they meet by the name of an axis
        trial.store(mixed, "TE", meaning(fn)(known_row[:, None], known_y))
    trial.store(trial.ew("div", x, p), "TE", known_x / known_p)
    trial.store(trial.ew("pow", p, y), "TE", known_p**known_y, 1e-5)
    half = trial.ew("pow", p, trial.number(-0.5))
    trial.store(half, "TE", known_p**-0.5, 4e-6)
    for fn in _TO_WHOLE:
        trial.store(trial.ew(fn, x, dtype=INT), "TE", meaning(fn)(known_x).int())
    _truths(trial, F32, (x, known_x), (y, known_y))
    return trial


def _truths(
    trial: Trial, dtype: DType, one: tuple[Value, Tensor], other: tuple[Value, Tensor]
) -> None:
    """Comparisons, what becomes of them, and choices by them."""
    (x, known_x), (y, known_y) = one, other
    for fn in _COMPARISONS:
        trial.store(trial.ew(fn, x, y, dtype=BOOL), "TE", meaning(fn)(known_x, known_y))
    less = trial.ew("lt", x, y, dtype=BOOL)
    same = trial.ew("ge", x, trial.number(0, dtype), dtype=BOOL)
    known_less, known_same = known_x < known_y, known_x >= 0
    for fn in ("and", "or"):
        both = trial.ew(fn, less, same, dtype=BOOL)
        trial.store(both, "TE", meaning(fn)(known_less, known_same))
    trial.store(trial.ew("not", less, dtype=BOOL), "TE", ~known_less)
    chosen = trial.ew("where", trial.ew("not", less, dtype=BOOL), x, y, dtype=dtype)
    trial.store(chosen, "TE", torch.where(known_less, known_y, known_x))


def integers(block: int, dtype: DType = INT) -> Trial:
    """Arithmetic of integers: ``//`` and ``%`` floor, whatever the signs."""
    trial = _trial(block)
    far = 1 << 40 if dtype is LONG else 1000
    a, known_a = trial.load("TE", _whole(trial, 19) + (0 if dtype is INT else far), dtype)
    b, known_b = trial.load("TE", _whole(trial, 19), dtype)
    signed, known_signed = trial.load("TE", _whole(trial, 23), dtype)
    odd = _whole(trial, 5) * 2 + 1
    c, known_c = trial.load("TE", odd, dtype, fill=1)
    for fn in _OF_ALL_NUMBERS:
        trial.store(trial.ew(fn, a, b, dtype=dtype), "TE", meaning(fn)(known_a, known_b))
    for fn in _OF_ONE_NUMBER:
        trial.store(trial.ew(fn, b, dtype=dtype), "TE", meaning(fn)(known_b))
    for fn in ("floordiv", "mod"):
        for value, known in ((a, known_a), (signed, known_signed)):
            quotient = trial.ew(fn, value, c, dtype=dtype)
            trial.store(quotient, "TE", meaning(fn)(known, known_c))
        for number in (4, 3, -7):
            rest = trial.ew(fn, signed, trial.number(number, dtype), dtype=dtype)
            trial.store(rest, "TE", meaning(fn)(known_signed, torch.tensor(number)))
    _truths(trial, dtype, (a, known_a), (b, known_b))
    return trial


# Ties of both kinds for 8 and 11 bits, the largest that each has, what is too small or too large.
_HARD = [
    0.0, 1.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-11, 1 + 3 * 2.0**-11, -1 - 2.0**-8,
    1 + 2.0**-8 + 2.0**-20, 65504.0, 65519.0, 3.5, -3.5, 2.0**-14, 0.1, -0.1, 1 / 3, 255.5, 257.0,
    math.inf, -math.inf, math.nan,
]  # fmt: skip


def roundings(block: int, narrow: DType) -> Trial:
    """To the nearest number of a narrow type, ties to even."""
    trial = _trial(block)
    count = trial.sizes["T"] * trial.sizes["E"]
    hard = torch.tensor(_HARD).repeat(12)[:count]
    random = torch.randn(count) * 3
    values = torch.where(torch.arange(count) < len(_HARD) * 2, hard, random)
    x, known_x = trial.load("TE", values.view(-1, 3))
    y, known_y = trial.load("TE", _spread(trial, -70, 70))
    n, known_n = trial.load("TE", _whole(trial, 3000), INT)
    rounded = known_x.to(TORCH[narrow]).double()
    cast = trial.b.cast(x, narrow)
    trial.store(cast, "TE", rounded, 0, 0, unrounded=known_x)
    trial.store(trial.b.cast(cast, F32), "TE", rounded, 0, 0, unrounded=known_x)
    less = trial.ew("sub", trial.b.cast(cast, F32), y)
    trial.store(less, "TE", rounded - known_y, unrounded=known_x - known_y)
    loaded, known = trial.load("TE", values.view(-1, 3) / 7, narrow)
    trial.store(trial.b.cast(loaded, F32), "TE", known, 0, 0)
    trial.store(loaded, "TE", known, 0, 0)
    counted = trial.b.cast(n, narrow)
    nearest = known_n.to(TORCH[narrow]).double()
    trial.store(counted, "TE", nearest, 0, 0, unrounded=known_n.double())
    return trial


def casts(block: int) -> Trial:
    """To an integer toward zero; from one exactly, where the type has room."""
    trial = _trial(block)
    y, known_y = trial.load("TE", _spread(trial, -70, 70))
    n, known_n = trial.load("TE", _whole(trial, 3000), INT)
    for whole in (INT, LONG):
        trial.store(trial.b.cast(y, whole), "TE", known_y.trunc().to(TORCH[whole]))
    long, known_long = trial.load("TE", known_n.long() << 30, LONG)
    trial.store(trial.b.cast(n, LONG), "TE", known_n.long())
    trial.store(
        trial.ew("mul", *[trial.b.cast(n, LONG)] * 2, dtype=LONG), "TE", known_n.long() ** 2
    )
    trial.store(trial.b.cast(n, F32), "TE", known_n.double())
    trial.store(trial.b.cast(long, F32), "TE", known_long.double())
    small = trial.ew("floordiv", long, trial.number(1 << 30, LONG), dtype=LONG)
    trial.store(trial.b.cast(small, INT), "TE", known_n)
    trial.store(trial.b.cast(n, BOOL), "TE", known_n != 0)
    truth, known_truth = trial.load("TE", known_n % 2 == 0, BOOL)
    for dtype in (F32, INT, LONG):
        trial.store(trial.b.cast(truth, dtype), "TE", known_truth.to(TORCH[dtype]))
    return trial


def bits(block: int) -> Trial:
    """Numbers by their bits, every sign and size among them, infinite ones and both zeros."""
    trial = _trial(block)
    count = trial.sizes["T"] * trial.sizes["E"]
    hard = torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-42, -3e38, torch.inf, -torch.inf])
    numbers = torch.cat([hard, torch.randn(count).exp() * torch.randn(count)])[:count].view(-1, 3)
    whole, _ = trial.load("TE", numbers.view(torch.int32), INT)
    trial.store(trial.ew(AS_FLOAT, whole), "TE", numbers.double(), 0, 0)
    one = trial.ew(AS_FLOAT, trial.number(0x3F800000, INT))
    trial.store(trial.ew("add", one, trial.b.cast(whole, F32)), "TE", numbers.view(torch.int32) + 1)
    return trial


ELEMENTWISE_CASES: Mapping[str, Callable[[], Trial]] = {
    "functions of reals, blocks of 16": partial(reals, 16),
    "functions of reals, blocks of 1": partial(reals, 1),
    "int32, blocks of 1": partial(integers, 1),
    "int32, blocks of 64": partial(integers, 64),
    "int64, blocks of 16": partial(integers, 16, LONG),
    **{
        f"{name}, blocks of {block}": partial(roundings, block, dtype)
        for name, dtype in (("fp16", F16), ("bf16", BF16))
        for block in (1, 64)
    },
    "numbers by their bits, blocks of 1": partial(bits, 1),
    "numbers by their bits, blocks of 64": partial(bits, 64),
    "casts, blocks of 1": partial(casts, 1),
    "casts, blocks of 64": partial(casts, 64),
}
