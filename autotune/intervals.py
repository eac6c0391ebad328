"""Where the values of a mixer's terms can lie, from where its inputs lie.

Coarse on purpose: an interval per term, the bounds included. States are widened to all that their
updates can reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..ir.binding import Number
from ..ir.expression import (
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
)
from ..ir.mixer import Map, Mixer, Recurrence, State, assignments


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
_TRUTH = Interval(0.0, 1.0)


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


@dataclass
class Bounds:
    """The intervals of a mixer's names and terms, where its inputs lie in ``inputs``."""

    mixer: Mixer
    sizes: Mapping[str, int]
    params: Mapping[str, Number]
    inputs: Mapping[str, Interval]
    names: dict[str, Interval] = field(default_factory=dict)
    done: dict[int, Interval] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names |= {i.name: self.inputs.get(i.name, EVERYTHING) for i in self.mixer.inputs}
        for declared in self.mixer.inputs:
            if declared.kind is Kind.BOOL:
                self.names[declared.name] = _TRUTH
        for table in self.mixer.tables:
            self.names[table.name] = Interval.spanning(*table.values, 0.0)
        self.lets = {let.name: let.value for let in self.mixer.lets}
        for stage in self.mixer.stages:
            match stage:
                case Map(equations):
                    for equation in equations:
                        self.names[equation.name] = self.of(equation.value)
                case Recurrence():
                    self._settle(stage)
                case _:
                    self.names |= {result.name: EVERYTHING for result in stage.results}

    def _settle(self, stage: Recurrence) -> None:
        """The states of a recurrence and its own names, whatever the row."""
        initial = {s.name: self._reset(stage, self.of(s.initial)) for s in stage.states}
        self.names |= initial
        for _ in range(3):
            before = {state.name: self.names[state.name] for state in stage.states}
            self._rows(stage)
            self.names |= {
                s.name: _widened(before[s.name], self.names[s.name]) for s in stage.states
            }
        self._rows(stage)

    def _reset(self, stage: Recurrence, interval: Interval) -> Interval:
        return interval if stage.reset is None else interval.join(Interval(0, 0))

    def _rows(self, stage: Recurrence) -> None:
        states: Mapping[str, State] = {state.name: state for state in stage.states}
        for equation, _ in assignments(stage.step):
            self.done.clear()
            found = self.of(equation.value)
            if equation.name in states:
                found = found.join(self.names[equation.name])
            self.names[equation.name] = found
        self.done.clear()

    def of(self, expr: Expr) -> Interval:
        """Where a term can lie."""
        if id(expr) not in self.done:
            self.done[id(expr)] = self._of(expr)
        return self.done[id(expr)]

    def _of(self, expr: Expr) -> Interval:
        match expr:
            case Literal(value):
                return Interval(float(value), float(value))
            case Size(dim):
                return Interval(float(self.sizes[dim]), float(self.sizes[dim]))
            case Scalar(name):
                return Interval(float(self.params[name]), float(self.params[name]))
            case Index(dim):
                return Interval(0.0, float(max(self.sizes[dim] - 1, 0)))
            case Ref(name):
                if name not in self.names and name in self.lets:
                    self.names[name] = self.of(self.lets[name])
                return self.names.get(name, EVERYTHING)
            case Call(fn, args):
                return self._call(fn, args)
            case Reduce("sum", x):
                return _summed(self.of(x))
            case Reduce("any" | "all"):
                return _TRUTH
            case Reduce("max" | "min", x):
                return self.of(x)
            case Cumsum(x):
                return _summed(self.of(x))
            case Read(x, _, fill):
                return self.of(x).join(Interval(fill, fill))
            case _:
                return EVERYTHING

    def _call(self, fn: str, args: tuple[Expr, ...]) -> Interval:
        if fn == "mul" and _are_same(*args):
            return _power(self.of(args[0]), 2.0)
        if fn == "where":
            return self.of(args[1]).join(self.of(args[2]))
        values = [self.of(a) for a in args]
        return elementwise(fn, values)


def _are_same(a: Expr, b: Expr) -> bool:
    return a is b or (isinstance(a, Ref) and a == b)


def _summed(x: Interval) -> Interval:
    """A sum of any number of values."""
    return Interval(
        0.0 if x.low >= 0 else -math.inf,
        0.0 if x.high <= 0 else math.inf,
    )


def _widened(before: Interval, after: Interval) -> Interval:
    low = before.low if after.low >= before.low else (0.0 if after.low >= 0 else -math.inf)
    high = before.high if after.high <= before.high else (0.0 if after.high <= 0 else math.inf)
    return Interval(low, high)


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
            return _power(a, b.low)
        case "pow", [a, b] if 0 < a.low == a.high:
            return elementwise("exp", [elementwise("mul", [b, elementwise("log", [a])])])
        case (("lt" | "le" | "gt" | "ge" | "eq" | "ne" | "and" | "or" | "not"), _):
            return _TRUTH
        case _:
            return EVERYTHING


def _power(base: Interval, power: float) -> Interval:
    if power == int(power) and int(power) % 2 == 0 and power > 0:
        return Interval(base.smallest**power, base.largest**power)
    if base.low >= 0:
        ends = [math.inf if v == 0 and power < 0 else v**power for v in (base.low, base.high)]
        return Interval.spanning(*ends)
    if power == int(power) and power > 0:
        return Interval(base.low**power, base.high**power)
    return EVERYTHING
