"""Where the values of integer inputs lie, from how the equations use them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...compiler.analysis.intervals import EVERYTHING, Interval
from ...ir.binding import Number, param_values
from ...ir.expression import Call, Cumsum, Expr, Index, Kind, Read, Reduce, Ref
from ...ir.host import evaluate_host, is_host
from ...ir.mixer import Map, Mixer
from ...ir.optional import expressions
from ...ir.rewriting import walk
from .draws import declared_range

_ORDERS = frozenset({"lt", "le", "gt", "ge"})
_EQUALITIES = frozenset({"eq", "ne"})
# How many labels there are where labels are only compared with each other.
_LABELS = 3


@dataclass(frozen=True, slots=True)
class Range:
    """low ... high - 1; with ``outside`` a few values just beyond are legal and telling."""

    low: int
    high: int
    outside: bool = False


@dataclass
class _Uses:
    """What was seen of one input, strongest first."""

    reads: list[float] = field(default_factory=list)  # sizes of the tables that it reads
    positions: list[float] = field(default_factory=list)  # lengths that it is compared with
    divides: bool = False
    ordered: bool = False
    labels: bool = False

    def range(self, last: int) -> Range:
        """The range that fits, ``last`` being the size of the input's last axis."""
        if self.reads:
            return Range(0, max(1, math.floor(min(self.reads))), outside=not self.divides)
        low = 1 if self.divides else 0
        if self.positions:
            return Range(low, max(low + 2, math.floor(min(self.positions)) + 1))
        if self.labels and not self.ordered:
            return Range(low, low + _LABELS)
        return Range(low, max(low + _LABELS, last + 1))


def integer_ranges(
    mixer: Mixer, sizes: Mapping[str, int], params: Mapping[str, Number] = {}
) -> dict[str, Range]:
    """A range for every integer input.

    What indexes a table lies in it, with a few outside (``fill`` is defined there); what is
    compared with positions lies in the sequence; labels compared with each other are few; a
    divisor is not 0. A range that the spec declares stands.
    """
    numbers = param_values(mixer, sizes, params)
    search = _Search(mixer, sizes, numbers)
    for expr in expressions(mixer):
        for node in walk(expr):
            search.note(node)
    found = {}
    for declared in mixer.inputs:
        if declared.kind is Kind.INT:
            last = math.prod(sizes[dim] for dim in declared.layout[-1]) if declared.layout else 1
            used = search.uses[declared.name].range(last)
            found[declared.name] = _promised(used, declared_range(declared, sizes, numbers))
    return found


def _promised(used: Range, declared: Interval) -> Range:
    """What the spec says, and where an end is open, what the equations ask for."""
    if declared == EVERYTHING:
        return used
    low = used.low if math.isinf(declared.low) else math.ceil(declared.low)
    high = used.high if math.isinf(declared.high) else math.floor(declared.high) + 1
    return Range(low, max(high, low + 1))


class _Search:
    """One walk over the equations."""

    def __init__(
        self, mixer: Mixer, sizes: Mapping[str, int], numbers: Mapping[str, Number]
    ) -> None:
        self.sizes, self.numbers = sizes, numbers
        self.uses = {i.name: _Uses() for i in mixer.inputs if i.kind is Kind.INT}
        equations = [*mixer.lets]
        for stage in mixer.stages:
            equations += stage.equations if isinstance(stage, Map) else ()
        self.named = {e.name: e.value for e in equations}

    def note(self, node: Expr) -> None:
        """Take note of the inputs that ``node`` uses as an index, a position or a label."""
        match node:
            case Read(_, places) | Reduce(group=places):
                for dim, index in places:
                    for name, factor in self._inputs(index):
                        self.uses[name].reads.append(self.sizes[dim] / abs(factor or 1))
            case Call(fn, (a, b)) if fn in _ORDERS | _EQUALITIES:
                self._compared(fn, a, b)
                self._compared(fn, b, a)
            case Call("mod" | "floordiv", (_, divisor)):
                for name, _ in self._inputs(divisor):
                    self.uses[name].divides = True
            case _:
                pass

    def _compared(self, fn: str, side: Expr, other: Expr) -> None:
        lengths = [self.sizes[x.dim] for x, _ in self._carried(other, 1.0) if isinstance(x, Index)]
        peers = any(True for _ in self._inputs(other))
        for name, factor in self._inputs(side):
            uses = self.uses[name]
            if lengths:
                uses.positions.append(max(lengths) / abs(factor or 1))
            elif peers and fn in _EQUALITIES:
                uses.labels = True
            else:
                uses.ordered = True

    def _inputs(self, expr: Expr) -> Iterator[tuple[str, float]]:
        """The integer inputs whose values ``expr`` carries, with what they are multiplied by."""
        for leaf, factor in self._carried(expr, 1.0):
            if isinstance(leaf, Ref):
                yield leaf.name, factor

    def _carried(self, expr: Expr, factor: float) -> Iterator[tuple[Ref | Index, float]]:
        """The inputs and indices whose values show in the value of ``expr``."""
        match expr:
            case Index():
                yield expr, factor
            case Ref(name):
                if name in self.uses:
                    yield expr, factor
                elif name in self.named:
                    yield from self._carried(self.named[name], factor)
            case Read(x) | Reduce(_, x) | Cumsum(x):
                yield from self._carried(x, factor)
            case Call("where", (_, a, b)):
                yield from self._carried(a, factor)
                yield from self._carried(b, factor)
            case Call("mul", (a, b)):
                for x, y in ((a, b), (b, a)):
                    yield from self._carried(x, factor * self._number(y))
            case Call("floordiv", (a, b)):
                yield from self._carried(a, factor / (self._number(b) or 1.0))
            case Call("mod", (a, b)) if is_host(b):
                return
            case Call(fn, args) if fn not in _ORDERS | _EQUALITIES:
                for a in args:
                    yield from self._carried(a, factor)
            case _:
                return

    def _number(self, expr: Expr) -> float:
        return float(evaluate_host(expr, self.sizes, self.numbers)) if is_host(expr) else 1.0
