"""How many rows back an index along a sequence reaches: t - l reaches the size of L less one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...ir.expression import (
    Call,
    Expr,
    Index,
    Kind,
    Literal,
    Ref,
    Scalar,
    Size,
    call,
    is_nonnegative,
)
from ...ir.mixer import Mixer
from .linear import linear, plus


@dataclass(frozen=True, slots=True)
class Reach:
    """``rows * t + low <= index <= rows * t + high``; the bounds are numbers of the host."""

    rows: int
    low: Expr
    high: Expr


def rows_back(mixer: Mixer, index: Expr, on_sequence: Callable[[str], bool]) -> Expr | None:
    """The most rows that an index along a sequence lies behind its row, in sizes and params.

    None where that is not bounded, or where the index may lie after the row.
    """
    reach = _Bounds(mixer, on_sequence)(index)
    if reach is None or reach.rows != 1 or not is_at_most_zero(reach.high):
        return None
    return plus(0, call("neg", reach.low))


@dataclass(frozen=True)
class _Bounds:
    mixer: Mixer
    on_sequence: Callable[[str], bool]

    def __call__(self, index: Expr) -> Reach | None:
        match index:
            case Literal() | Size():
                return self._number(index)
            case Scalar(name, _, runtime):
                return None if runtime else self(self.mixer.param(name).value)
            case Index(dim):
                if self.on_sequence(dim):
                    return Reach(1, Literal(0), Literal(0))
                return Reach(0, Literal(0), plus(Size(dim), -1))
            case Ref(name):
                return self._table(name)
            case Call(fn, args):
                return self._call(fn, args, index)
            case _:
                return None

    def _number(self, value: Expr) -> Reach | None:
        if isinstance(value, Size) and self.on_sequence(value.dim):
            return None
        return Reach(0, value, value)

    def _table(self, name: str) -> Reach | None:
        table = next((t for t in self.mixer.tables if t.name == name), None)
        if table is None or not table.values or table.kind is Kind.REAL:
            return None
        return Reach(0, Literal(int(min(table.values))), Literal(int(max(table.values))))

    def _call(self, fn: str, args: tuple[Expr, ...], index: Call) -> Reach | None:
        if fn == "where":
            return self._either(args[1], args[2])
        if fn == "mul":
            return self._product(*args)
        parts = [self(arg) for arg in args]
        if any(part is None for part in parts):
            return Reach(0, Literal(0), Literal(1)) if index.kind is Kind.BOOL else None
        match fn, [part for part in parts if part is not None]:
            case "add", [a, b]:
                return Reach(a.rows + b.rows, plus(a.low, b.low), plus(a.high, b.high))
            case "sub", [a, b]:
                return Reach(a.rows - b.rows, _minus(a.low, b.high), _minus(a.high, b.low))
            case "neg", [a]:
                return Reach(-a.rows, _minus(0, a.high), _minus(0, a.low))
            case "mod", [_, b] if b.rows == 0 and b.low == b.high and is_nonnegative(b.low):
                return Reach(0, Literal(0), plus(b.low, -1))
            case "max", [a, b]:
                return _larger(a, b)
            case "min", [a, b] if a.rows == b.rows:
                return Reach(a.rows, _least(a.low, b.low), _least(a.high, b.high))
            case _:
                return Reach(0, Literal(0), Literal(1)) if index.kind is Kind.BOOL else None

    def _either(self, yes: Expr, no: Expr) -> Reach | None:
        a, b = self(yes), self(no)
        if a is None or b is None or a.rows != b.rows:
            return None
        return Reach(a.rows, _least(a.low, b.low), _most(a.high, b.high))

    def _product(self, left: Expr, right: Expr) -> Reach | None:
        for whole, size in ((left, right), (right, left)):
            if isinstance(whole, Call) and whole.fn == "floordiv" and whole.args[1] == size:
                inner = self(whole.args[0])  # x // n * n is x - x % n
                if inner is None or not is_nonnegative(size):
                    return None
                return Reach(inner.rows, plus(inner.low, 1, call("neg", size)), inner.high)
        a, b = self(left), self(right)
        if a is None or b is None:
            return None
        for one, factor in ((a, b), (b, a)):
            if isinstance(factor.low, Literal) and factor.low == factor.high and not factor.rows:
                return _scaled(one, int(factor.low.value))
        if a.rows or b.rows or not is_nonnegative(a.low) or not is_nonnegative(b.low):
            return None
        return Reach(0, call("mul", a.low, b.low), call("mul", a.high, b.high))


def _scaled(one: Reach, factor: int) -> Reach:
    low, high = (plus(0, call("mul", factor, bound)) for bound in (one.low, one.high))
    return Reach(one.rows * factor, *((low, high) if factor >= 0 else (high, low)))


def _larger(a: Reach, b: Reach) -> Reach | None:
    """max(a, b): where only one follows the row, it is never below that one (t is not negative)."""
    if a.rows == b.rows:
        return Reach(a.rows, _most(a.low, b.low), _most(a.high, b.high))
    if {a.rows, b.rows} == {0, 1}:
        row, other = (a, b) if a.rows else (b, a)
        return Reach(1, row.low, _most(row.high, other.high))
    return None


def _minus(a: Expr | int, b: Expr) -> Expr:
    return plus(a, call("neg", b))


def _least(a: Expr, b: Expr) -> Expr:
    match _minus(a, b):
        case Literal(value):
            return a if value <= 0 else b
        case _:
            return call("min", a, b)


def _most(a: Expr, b: Expr) -> Expr:
    return b if _least(a, b) == a else a if _least(a, b) == b else call("max", a, b)


def is_at_most_zero(bound: Expr) -> bool:
    """Whether a bound in sizes is never positive, as far as its form shows."""
    match bound:
        case Call("max", args):
            return all(is_at_most_zero(arg) for arg in args)
        case Call("min", args):
            return any(is_at_most_zero(arg) for arg in args)
        case _:
            form = linear(bound)
            falling = all(c < 0 and is_nonnegative(term) for term, c in form.terms)
            return falling and form.constant <= 0


__all__ = ["Reach", "is_at_most_zero", "rows_back"]
