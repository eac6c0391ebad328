"""Intervals of real numbers, and where elementwise functions take them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Interval:
    """low ... high; both may be infinite."""

    low: float
    high: float

    @classmethod
    def spanning(cls, *values: float) -> Interval:
        """The smallest interval with all the values; 0 * inf, which is no number, counts as 0."""
        known = [0.0 if math.isnan(v) else v for v in values]
        return cls(min(known), max(known))

    def join(self, other: Interval) -> Interval:
        """The smallest interval that has both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))

    def within(self, low: float, high: float) -> bool:
        """Whether no value lies outside low ... high."""
        return low <= self.low and self.high <= high

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))

    @property
    def smallest(self) -> float:
        """The smallest magnitude."""
        return 0.0 if self.low <= 0 <= self.high else min(abs(self.low), abs(self.high))


EVERYTHING = Interval(-math.inf, math.inf)
TRUTH = Interval(0.0, 1.0)


def _exp(x: float) -> float:
    return math.exp(min(x, 700.0)) if x < math.inf else math.inf


def _softplus(x: float) -> float:
    return x if x > 30 else math.log1p(_exp(x))


def _log(x: float) -> float:
    return -math.inf if x <= 0 else math.log(x)


# Functions that rise with their argument.
_RISING: Mapping[str, Callable[[float], float]] = {
    "exp": _exp,
    "exp2": lambda x: _exp(x * math.log(2)),
    "expm1": lambda x: _exp(x) - 1,
    "log": _log,
    "log2": lambda x: _log(x) / math.log(2),
    "log1p": lambda x: _log(1 + x),
    "sqrt": lambda x: math.sqrt(max(x, 0.0)),
    "tanh": math.tanh,
    "erf": math.erf,
    "sigmoid": lambda x: 1 / (1 + _exp(-x)),
    "logsigmoid": lambda x: -_softplus(-x),
    "softplus": _softplus,
    "relu": lambda x: max(x, 0.0),
    "sign": lambda x: math.copysign(float(x != 0), x),
    "elu": lambda x: x if x > 0 else _exp(x) - 1,
    "floor": lambda x: x - 1,
    "ceil": lambda x: x + 1,
    "round": lambda x: x,
    "detach": lambda x: x,
}
_FIXED: Mapping[str, Interval] = {
    "sin": Interval(-1, 1),
    "cos": Interval(-1, 1),
    "acos": Interval(0, math.pi),
}
_LEAST = {"gelu": -0.2, "gelu_tanh": -0.2, "silu": -0.3}


def elementwise(fn: str, values: list[Interval]) -> Interval:
    """The interval of an elementwise function of values that lie in intervals."""
    x = values[0]
    if fn in _RISING:
        return Interval.spanning(_RISING[fn](x.low), _RISING[fn](x.high))
    if fn in _FIXED:
        return _FIXED[fn]
    if fn in _LEAST:
        return Interval(0.0 if x.low >= 0 else _LEAST[fn], max(x.high, 0.0))
    match fn, values:
        case "add", [a, b]:
            return Interval.spanning(a.low + b.low, a.high + b.high)
        case "sub", [a, b]:
            return Interval.spanning(a.low - b.high, a.high - b.low)
        case "mul", [a, b]:
            corners = (p * q for p in (a.low, a.high) for q in (b.low, b.high))
            return Interval.spanning(*corners)
        case "div", [a, b]:
            if b.smallest == 0 and not (b.low >= 0 or b.high <= 0):
                return EVERYTHING
            ends = [
                math.copysign(math.inf, b.low + b.high) if v == 0 else 1 / v
                for v in (b.low, b.high)
            ]
            return Interval.spanning(*(p * q for p in (a.low, a.high) for q in ends))
        case "neg", [a]:
            return Interval(-a.high, -a.low)
        case "abs", [a]:
            return Interval(a.smallest, a.largest)
        case "max", [a, b]:
            return Interval(max(a.low, b.low), max(a.high, b.high))
        case "min", [a, b]:
            return Interval(min(a.low, b.low), min(a.high, b.high))
        case "logaddexp", [a, b]:
            return Interval(max(a.low, b.low), max(a.high, b.high) + math.log(2))
        case "rsqrt", [a]:
            return elementwise("div", [Interval(1, 1), elementwise("sqrt", [a])])
        case "pow", [a, b] if b.low == b.high:
            return power_of(a, b.low)
        case "pow", [a, b] if 0 < a.low == a.high:
            return elementwise("exp", [elementwise("mul", [b, elementwise("log", [a])])])
        case (("lt" | "le" | "gt" | "ge" | "eq" | "ne" | "and" | "or" | "not"), _):
            return TRUTH
        case _:
            return EVERYTHING


def power_of(base: Interval, power: float) -> Interval:
    """The interval of a power of numbers in an interval."""
    if power == int(power) and int(power) % 2 == 0 and power > 0:
        return Interval(base.smallest**power, base.largest**power)
    if base.low >= 0:
        ends = [math.inf if v == 0 and power < 0 else v**power for v in (base.low, base.high)]
        return Interval.spanning(*ends)
    if power == int(power) and power > 0:
        return Interval(base.low**power, base.high**power)
    return EVERYTHING
