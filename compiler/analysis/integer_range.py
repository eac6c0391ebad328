"""Where the values of integer expressions lie: whether 32 bits hold them.

Positions and lengths are below 2**30, the elements of an input anywhere in its type. Bounds are
Python's integers, so that nothing overflows here.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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
from ...ir.node import At, Point
from ...ir.rewriting import walk
from ...ir.verify_plan import LONGEST
from .intervals import EVERYTHING, Interval, elementwise

# Powers beyond are as good as infinite.
_MOST_BITS = 4096


@dataclass(frozen=True, slots=True)
class IntegerRange:
    """low ... high, both included."""

    low: int
    high: int

    @classmethod
    def spanning(cls, *values: int) -> IntegerRange:
        """The smallest range with all the values."""
        return cls(min(values), max(values))

    def join(self, other: IntegerRange) -> IntegerRange:
        """The smallest range that has both."""
        return IntegerRange(min(self.low, other.low), max(self.high, other.high))

    @property
    def largest(self) -> int:
        """The largest magnitude."""
        return max(abs(self.low), abs(self.high))

    def fits(self, bits: int) -> bool:
        """Whether a signed integer of so many bits holds every value."""
        return -(1 << (bits - 1)) <= self.low and self.high < 1 << (bits - 1)


ANY_32 = IntegerRange(-(2**31), 2**31 - 1)
ANY_64 = IntegerRange(-(2**63), 2**63 - 1)
TRUTH = IntegerRange(0, 1)
UNIT = IntegerRange(-1, 1)


@dataclass
class IntegerRanges:
    """The ranges of a kernel's integer expressions.

    ``sizes`` and ``params`` are those that are known; ``derived`` gives other sizes in terms of
    them; ``made`` is what kernels have stored, by name. Other tensors hold ``elements``, or any 64
    bits where they are ``wide``, and no axis is longer than ``longest``.
    """

    sizes: Mapping[str, int]
    params: Mapping[str, float]
    derived: Mapping[str, Expr] = field(default_factory=dict)
    made: dict[str, Expr] = field(default_factory=dict)
    elements: IntegerRange = ANY_32
    longest: int = LONGEST
    wide: frozenset[str] = frozenset()
    limits: dict[str, int] = field(default_factory=dict)  # dims whose length 64 bits limit
    _done: dict[int, tuple[Expr, IntegerRange]] = field(default_factory=dict)

    def of(self, expr: Expr) -> IntegerRange:
        """Where the value of an integer (or a truth value) lies."""
        known = self._done.get(id(expr))
        if known is None:
            known = self._done[id(expr)] = (expr, self._of(expr))
        return known[1]

    def bits(self, expr: Expr) -> int:
        """The bits of the type that ``expr`` is computed in.

        Where lengths may make it pass 64, ``limits`` gets those up to which it does not.
        """
        found = self.of(expr)
        if not found.fits(64):
            self._limit(expr)
        return 32 if found.fits(32) else 64

    def _limit(self, expr: Expr) -> None:
        """Elements of inputs, which nobody knows before, are taken for small."""

        def fits(longest: int) -> bool:
            short = IntegerRanges(self.sizes, self.params, self.derived, self.made, UNIT, longest)
            return short.of(expr).fits(64)

        dims = self._lengths(expr) - set(self.sizes)
        if dims and fits(1) and not fits(self.longest):
            lengths = range(2, self.longest + 1)
            limit = 1 + bisect_left(lengths, True, key=lambda n: not fits(n))
            self.limits |= {dim: min(limit, self.limits.get(dim, limit)) for dim in dims}

    def _lengths(self, expr: Expr) -> set[str]:
        """The dims whose length has a part in the value."""
        found: set[str] = set()
        for node in walk(expr):
            match node:
                case Index(dim) | Size(dim) | Cumsum(over=dim):
                    found.add(dim)
                case Reduce(over=over):
                    found.update(over)
                case Ref(name) if name in self.made:
                    found |= self._lengths(self.made[name])
                case _:
                    pass
        return found

    def _of(self, expr: Expr) -> IntegerRange:
        if expr.kind is Kind.BOOL:
            return TRUTH
        match expr:
            case Literal(value):
                return IntegerRange(int(value), int(value))
            case Size(dim):
                return self._size(dim)
            case Index(dim):
                return IntegerRange(0, max(self._size(dim).high - 1, 0))
            case Scalar(name) if name in self.params:
                return IntegerRange(int(self.params[name]), int(self.params[name]))
            case Ref(name) if name in self.made:
                return self.of(self.made[name])
            case Ref(name) if name in self.wide:
                return ANY_64
            case Ref(point=Point(at=At.ROW)):
                return IntegerRange(-1, self.longest)
            case Ref():
                return self.elements
            case Read(x, _, fill):
                return self.of(x).join(IntegerRange(int(fill), int(fill)))
            case Reduce() | Cumsum():
                return self._reduced(expr)
            case Call(fn, args):
                return self._call(fn, args)
            case _:
                return ANY_32

    def _size(self, dim: str) -> IntegerRange:
        if dim in self.sizes:
            return IntegerRange(self.sizes[dim], self.sizes[dim])
        if dim in self.derived:
            made = self.of(self.derived[dim])
            return IntegerRange(max(made.low, 0), min(made.high, self.longest))
        return IntegerRange(0, self.longest)

    def _reduced(self, expr: Reduce | Cumsum) -> IntegerRange:
        x = self.of(expr.x)
        over = expr.over if isinstance(expr, Reduce) else (expr.over,)
        count = math.prod(self._size(dim).high for dim in over)
        match expr:
            case Reduce("max" | "min"):
                return x.join(ANY_32)  # of nothing: the ends of the type
            case Reduce("prod"):
                most = _power(max(x.largest, 1), count)
                return IntegerRange(min(x.low, -most if x.low < 0 else 0), most)
            case _:
                return IntegerRange(min(x.low, 0) * count, max(x.high, 0) * count)

    def _real(self, expr: Expr) -> Interval:
        """Where a real number lies."""
        if expr.kind is not Kind.REAL:
            own = self.of(expr)
            return Interval(_as_float(own.low), _as_float(own.high))
        match expr:
            case Literal(value):
                return Interval(float(value), float(value))
            case Scalar(name) if name in self.params:
                return Interval(float(self.params[name]), float(self.params[name]))
            case Call("where", (_, a, b)):
                return self._real(a).join(self._real(b))
            case Call(fn, args):
                return elementwise(fn, [self._real(a) for a in args])
            case _:
                return EVERYTHING

    def _call(self, fn: str, args: tuple[Expr, ...]) -> IntegerRange:
        if args[0].kind is Kind.REAL:  # rounded, to 32 bits; 1 beside: it may be inexact
            real = self._real(args[0])
            low, high = max(real.low - 1, ANY_32.low), min(real.high + 1, ANY_32.high)
            return IntegerRange(math.floor(low), math.ceil(high)) if low <= high else ANY_32
        if fn == "where":
            return self.of(args[1]).join(self.of(args[2]))
        rule = _RULES.get(fn)
        return ANY_32 if rule is None else rule(*(self.of(a) for a in args))


def _power(base: int, power: int) -> int:
    """base ** power of natural numbers, or something as far beyond any integer."""
    small = base < 2 or power * base.bit_length() < _MOST_BITS
    return int(base**power) if small else 1 << _MOST_BITS


def _as_float(value: int) -> float:
    return float(value) if abs(value) < 2**1000 else math.copysign(math.inf, value)


def _corners(
    fn: Callable[[int, int], int],
) -> Callable[[IntegerRange, IntegerRange], IntegerRange]:
    def rule(a: IntegerRange, b: IntegerRange) -> IntegerRange:
        return IntegerRange.spanning(*(fn(p, q) for p in (a.low, a.high) for q in (b.low, b.high)))

    return rule


def _quotient(a: IntegerRange, b: IntegerRange) -> IntegerRange:
    """Dividing brings no number further from 0, but -1 // n."""
    if a.low >= 0 and b.low > 0:
        return IntegerRange(a.low // b.high, a.high // b.low)
    return IntegerRange(-a.largest - 1, a.largest + 1)


def _remainder(a: IntegerRange, b: IntegerRange) -> IntegerRange:
    """The sign of the divisor, and less than it."""
    low, high = min(b.low + 1, 0), max(b.high - 1, 0)
    return IntegerRange(low, min(high, a.high) if a.low >= 0 <= b.low else high)


def _raised(a: IntegerRange, b: IntegerRange) -> IntegerRange:
    most = max(_power(a.largest, max(b.high, 0)), 1)
    return IntegerRange(-most if a.low < 0 else 0, most)


_RULES: Mapping[str, Callable[..., IntegerRange]] = {
    "add": lambda a, b: IntegerRange(a.low + b.low, a.high + b.high),
    "sub": lambda a, b: IntegerRange(a.low - b.high, a.high - b.low),
    "mul": _corners(lambda p, q: p * q),
    "neg": lambda a: IntegerRange(-a.high, -a.low),
    "abs": lambda a: IntegerRange(max(a.low, -a.high, 0), a.largest),
    "relu": lambda a: IntegerRange(max(a.low, 0), max(a.high, 0)),
    "max": lambda a, b: IntegerRange(max(a.low, b.low), max(a.high, b.high)),
    "min": lambda a, b: IntegerRange(min(a.low, b.low), min(a.high, b.high)),
    "sign": lambda _: IntegerRange(-1, 1),
    "floordiv": _quotient,
    "mod": _remainder,
    "pow": _raised,
    **dict.fromkeys(("detach", "floor", "ceil", "round"), lambda a: a),
}
