"""Where the values of a mixer's terms can lie, from where its inputs lie.

Coarse on purpose: an interval per term, the bounds included. States are widened to all that their
updates can reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...compiler.analysis.intervals import EVERYTHING, TRUTH, Interval, elementwise, power_of
from ...ir.binding import Number
from ...ir.expression import (
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
from ...ir.mixer import Map, Mixer, Recurrence, State, assignments


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
                self.names[declared.name] = TRUTH
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
                return TRUTH
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
            return power_of(self.of(args[0]), 2.0)
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
