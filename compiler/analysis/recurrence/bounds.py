"""Numbers between which a value must lie, whatever the inputs are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ....ir.expression import Call, Expr, Index, Kind, Literal, Read, Size


@dataclass(frozen=True, slots=True)
class Bounds:
    """low <= value <= high, ends included, as rounding may reach them."""

    low: float = -math.inf
    high: float = math.inf

    def rising(self, fn: Callable[[float], float]) -> Bounds:
        """The bounds of a function that never falls."""
        return Bounds(fn(self.low), fn(self.high))

    def joined(self, other: Bounds) -> Bounds:
        """Bounds of either."""
        return Bounds(min(self.low, other.low), max(self.high, other.high))


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _exp2(x: float) -> float:
    return 2.0**x if x < 1000 else math.inf


def _sigmoid(x: float) -> float:
    return 1 / (1 + _exp(-x))


_RISING: Mapping[str, Callable[[float], float]] = {
    "exp": _exp,
    "exp2": _exp2,
    "sigmoid": _sigmoid,
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0),
    "softplus": lambda x: math.log1p(math.exp(x)) if x < 30 else x,
    "detach": lambda x: x,
}


def bounds(expr: Expr) -> Bounds:
    """What is known of the range of a value; infinite ends where nothing is."""
    match expr:
        case Literal(value):
            return Bounds(float(value), float(value))
        case Size():
            return Bounds(low=1)
        case Index():
            return Bounds(low=0)
        case Call("pow", (Literal(base), power)) if base == 2:
            return bounds(power).rising(_exp2)
        case Call(fn, (x,)) if fn in _RISING:
            return bounds(x).rising(_RISING[fn])
        case Call(fn, args):
            return _call(fn, [bounds(a) for a in args])
        case Read(x, _, fill):
            return bounds(x).joined(Bounds(fill, fill))
        case _:
            return Bounds(0, 1) if expr.kind is Kind.BOOL else Bounds()


def _call(fn: str, args: list[Bounds]) -> Bounds:
    match fn, args:
        case "add", [a, b]:
            return Bounds(a.low + b.low, a.high + b.high)
        case "sub", [a, b]:
            return Bounds(a.low - b.high, a.high - b.low)
        case "neg", [a]:
            return Bounds(-a.high, -a.low)
        case "mul", [a, b]:
            ends = [_product(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
            return Bounds(min(ends), max(ends))
        case "where", [_, a, b]:
            return a.joined(b)
        case "abs", [a]:
            return Bounds(low=0, high=max(abs(a.low), abs(a.high)))
        case "max", [a, b]:
            return Bounds(max(a.low, b.low), max(a.high, b.high))
        case "min", [a, b]:
            return Bounds(min(a.low, b.low), min(a.high, b.high))
        case _:
            return Bounds()


def _product(x: float, y: float) -> float:
    return 0.0 if x == 0 or y == 0 else x * y
