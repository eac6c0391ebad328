"""Comparisons solved for the position along one axis.

    i - j < window            -->  j >= i - window + 1
    j // block <= i // block  -->  j < (i // block + 1) * block
    abs(i - j) <= w           -->  j >= i - w and j < i + w + 1
    doc[i] == doc[j]          -->  j >= left(doc, doc[i]) and j < right(doc, doc[i])   (sorted)

Bounds are integers. Where a comparison is of real numbers, what a kernel computes in 32 bits may
be off by a little; so each bound has a loose value, which never excludes a position that the
comparison admits, and a tight one, which never includes one that it doesn't. That holds for
values up to 2**23, the largest integers that 32-bit floats tell apart by halves, and for infinite
ones (no window for this head) as long as none is subtracted from another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ....ir.expression import Call, Expr, Index, Literal, Read, Ref, Scalar, Size, call
from ....ir.key_ranges import Search
from ..facts import Facts, in_range, is_positive
from ..linear import (
    Number,
    ceiling_divided,
    expression,
    floor_divided,
    is_integer,
    linear,
    minus,
    plus,
    times,
)
from .normal_form import FALSE, TRUE, Atom, Every, Formula, Some, formula
from .trend import LIMIT

_DEEPEST = 5
_FLIPPED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}


@dataclass(frozen=True, slots=True)
class Limit:
    """``j < value`` (upper) or ``j >= value`` (lower); values are integers and free of j."""

    upper: bool
    loose: Expr
    tight: Expr
    searches: tuple[Search, ...] = ()


@dataclass(frozen=True, slots=True)
class Condition:
    """A truth value that is free of j."""

    value: Expr


@dataclass(frozen=True, slots=True)
class Residual:
    """A truth value that has j and gives no bound."""

    value: Expr


@dataclass(frozen=True, slots=True)
class _Side:
    """The side of a comparison that is free of j: its value for either use.

    ``slack`` is how far a real value may be off, by rounding; ``endless``: it may be as large as
    the limit, so that it must not be multiplied as it is.
    """

    loose: Expr
    tight: Expr
    searches: tuple[Search, ...] = ()
    slack: float = 0.0
    endless: bool = False

    def each(self, change: Callable[[Expr], Expr]) -> _Side:
        return replace(self, loose=change(self.loose), tight=change(self.tight))

    def plus(self, by: Expr | Number) -> _Side:
        if by in (0, Literal(0)):
            return self
        moved = self.each(lambda value: plus(value, by))
        return moved if moved.integer else replace(moved, slack=max(self.slack, 1.0))

    @property
    def integer(self) -> bool:
        return is_integer(self.loose) and is_integer(self.tight)

    @property
    def definite(self) -> bool:
        return self.loose == self.tight


def bounds_of(mask: Expr, axis: str, facts: Facts) -> Formula:
    """The mask as a formula over ``Limit``, ``Condition`` and ``Residual`` for ``axis``."""
    solver = _Solver(axis, facts)
    return formula(mask, solver.compare, solver.other)


@dataclass(frozen=True, slots=True)
class _Solver:
    axis: str
    facts: Facts
    depth: int = 0  # of piecewise functions inside each other; the formula doubles with each

    def other(self, value: Expr) -> Formula:
        return Atom(Residual(value)) if self.axis in value.axes else self._free(value)

    def _free(self, value: Expr) -> Formula:
        """A truth value that is free of j."""
        match self.facts.decided(value):
            case None:
                return Atom(Condition(value))
            case decided:
                return TRUE if decided else FALSE

    def compare(self, fn: str, a: Expr, b: Expr) -> Formula:
        """The formula of ``fn(a, b)``."""
        whole = call(fn, a, b)
        if self.axis not in whole.axes:
            return self._free(whole)
        if fn not in ("eq", "ne"):
            return self._ordered(fn, a, b) or Atom(Residual(whole))
        two = ("le", "ge") if fn == "eq" else ("lt", "gt")
        parts = [part for side in two if (part := self._ordered(side, a, b)) is not None]
        if len(parts) < 2:
            return Atom(Residual(whole))
        return Every(tuple(parts)) if fn == "eq" else Some(tuple(parts))

    def _ordered(self, fn: str, a: Expr, b: Expr) -> Formula | None:
        """``a fn b`` with the side that has j to the left."""
        if self.axis not in b.axes:
            return self._solve(a, fn, _side(b))
        if self.axis not in a.axes:
            return self._solve(b, _FLIPPED[fn], _side(a))
        return self._solve(plus(a, times(b, -1)), fn, _side(Literal(0)))

    def _solve(self, value: Expr, fn: str, side: _Side) -> Formula | None:
        """``value fn side``, where the value has j; None: no bound can be found."""
        form = linear(value)
        inside = [item for item in form.terms if self.axis in item[0].axes]
        if not inside:
            return self._free(call(fn, expression(form), side.loose)) if side.definite else None
        if len(inside) > 1:
            return None
        term, factor = inside[0]
        rest = form.without(term)
        if not is_integer(term) and _is_table(term) and (rest.terms or rest.constant):
            return None  # a search for a value that is off by a rounding may be off by anything
        side = side.plus(expression(rest.scaled(-1)))
        if factor < 0:
            fn, factor, side = _FLIPPED[fn], -factor, side.each(minus)
        exact = side.integer or (side.slack == 0 and not is_integer(term))
        if not (_is_table(term) and factor == 1 and exact):
            fn, side = _settled(is_integer(term), factor, fn, side)
        return self._peel(term, fn, side)

    def _part(self, value: Expr, fn: str, side: _Side) -> Formula | None:
        """As ``_solve``; a part that gives no bound stays as a residual."""
        found = self._solve(value, fn, side)
        if found is None and side.definite:
            return Atom(Residual(call(fn, value, side.loose)))
        return found

    def _peel(self, term: Expr, fn: str, side: _Side) -> Formula | None:
        """``term fn side`` where the term is j or a function of it."""
        upper = fn in ("lt", "le")
        match term:
            case Index(dim) if dim == self.axis:
                return self._limit(upper, side.plus(1) if upper else side)
            case Ref(_, _, _) | Read(_, _, _):
                return self._in_table(term, fn, side)
            case Call("floordiv", (a, b)) if self._divides(b) and is_integer(a):
                start = side.plus(1) if upper else side
                scaled = start.each(lambda value: _multiplied(value, b, side.endless))
                return self._solve(a, fn, scaled.plus(-1) if upper else scaled)
            case Call("mul" | "div", (_, _)):
                return self._of_product(term, fn, side)
            case Call("floor", (a,)):
                return self._solve(a, "lt" if upper else "ge", side.plus(1) if upper else side)
            case Call("ceil", (a,)):
                return self._solve(a, "le" if upper else "gt", side if upper else side.plus(-1))
            case Call(("abs" | "max" | "min" | "relu" | "where"), args):
                return self._piecewise(term.fn, args, fn, side)
            case _:
                return None

    def _limit(self, upper: bool, end: _Side) -> Formula:
        """The bound itself; one that every position keeps is no bound."""
        match end.tight:
            case Literal(value) if not upper and value <= 0:
                return TRUE
            case Size(dim) if upper and self.facts.one_length(dim, self.axis):
                return TRUE
            case _:
                return Atom(Limit(upper, end.loose, end.tight, end.searches))

    def _divides(self, divisor: Expr) -> bool:
        integer = is_integer(divisor) and self.axis not in divisor.axes
        return integer and is_positive(divisor, self.facts)

    def _piecewise(self, kind: str, args: tuple[Expr, ...], fn: str, side: _Side) -> Formula | None:
        if self.depth >= _DEEPEST:
            return None
        return replace(self, depth=self.depth + 1)._opened(kind, args, fn, side)

    def _opened(self, kind: str, args: tuple[Expr, ...], fn: str, side: _Side) -> Formula | None:
        upper = fn in ("lt", "le")
        parts: tuple[Formula | None, ...]
        match kind, args:
            case "where", (c, a, b):
                yes = formula(c, self.compare, self.other)
                no = formula(c, self.compare, self.other, True)
                one, two = self._part(a, fn, side), self._part(b, fn, side)
                if one is None or two is None:
                    return None
                return Some((Every((yes, one)), Every((no, two))))
            case "abs", (a,):
                parts = self._part(a, fn, side), self._part(a, _FLIPPED[fn], side.each(minus))
                every = upper
            case "relu", (a,):
                parts = self._part(a, fn, side), self._part(Literal(0), fn, side)
                every = upper
            case _:
                parts = tuple(self._part(a, fn, side) for a in args)
                every = upper == (kind == "max")
        known = tuple(part for part in parts if part is not None)
        if len(known) < len(parts):
            return None
        return Every(known) if every else Some(known)

    def _of_product(self, term: Call, fn: str, side: _Side) -> Formula | None:
        """``a * b`` or ``a / b``, where b is positive and free of j."""
        a, b = term.args
        if term.fn == "mul" and self.axis in b.axes:
            a, b = b, a
        if self.axis in b.axes or not is_positive(b, self.facts):
            return None
        upper = fn in ("lt", "le")
        if term.fn == "mul" and is_integer(a) and is_integer(b) and side.integer:
            divide = floor_divided if upper else ceiling_divided
            return self._solve(a, fn, side.each(lambda value: divide(value, b)))
        off = max(side.slack, 1.0) * (1 if upper else -1)
        scale = "div" if term.fn == "mul" else "mul"
        loose, tight = plus(side.loose, off), plus(side.tight, -off)
        widened = _Side(call(scale, loose, b), call(scale, tight, b), side.searches, 1.0)
        return self._solve(a, fn, widened)

    def _in_table(self, term: Ref | Read, fn: str, side: _Side) -> Formula | None:
        """``table[e] fn side`` for a table that is sorted along the axis which e reads."""
        found = self._sorted_table(term)
        if found is None or not (side.integer or side.slack == 0):
            return None
        table, dim, position = found
        end = "right" if fn in ("le", "gt") else "left"
        loose = Search("", table, dim, end, side.loose)
        tight = Search("", table, dim, end, side.tight)
        loose, tight = (
            replace(s, name=f"{s.table.name}:{s.side}:{s.value!r}") for s in (loose, tight)
        )
        searches = tuple(dict.fromkeys((*side.searches, loose, tight)))
        at = _Side(loose.ref, tight.ref, searches)
        if fn in ("lt", "le"):
            return self._solve(position, "le", at.plus(-1))
        return self._solve(position, "ge", at)

    def _sorted_table(self, term: Ref | Read) -> tuple[Ref, str, Expr] | None:
        match term:
            case Ref(name) if (name, self.axis) in self.facts.sorted:
                return term, self.axis, Index(self.axis)
            case Read(Ref(name) as table, ((dim, index),)):
                known = (name, dim) in self.facts.sorted and in_range(index, dim, self.facts)
                return (table, dim, index) if known and self.axis in index.axes else None
            case _:
                return None


def _is_table(term: Expr) -> bool:
    return isinstance(term, Ref | Read)


def _side(value: Expr) -> _Side:
    leaf = isinstance(value, Literal | Ref | Read | Scalar | Size)
    return _Side(value, value, slack=0.0 if leaf or is_integer(value) else 1.0)


def _settled(integer: bool, factor: Number, fn: str, side: _Side) -> tuple[str, _Side]:
    """``factor * term fn side`` as ``term fn' side'``; fn' is le or ge for an integer term."""
    upper = fn in ("lt", "le")
    if integer and isinstance(factor, int) and side.integer:
        if fn in ("lt", "gt"):
            side = side.plus(-1 if upper else 1)
        divide = floor_divided if upper else ceiling_divided
        return ("le" if upper else "ge"), side.each(lambda value: divide(value, factor))
    if factor != 1:
        slack = max(side.slack, 1.0) * max(1.0, 1.0 / factor)
        side = replace(side.each(lambda value: times(value, 1.0 / factor)), slack=slack)
    return _rounded(fn, side) if integer else (fn, side)


def _rounded(fn: str, side: _Side) -> tuple[str, _Side]:
    """An integer against a real side: the side becomes an integer."""
    upper = fn in ("lt", "le")
    off = math.ceil(side.slack)
    step = {"le": "floor", "ge": "ceil", "lt": "ceil", "gt": "floor"}[fn]
    shift = {"le": 0, "ge": 0, "lt": -1, "gt": 1}[fn]
    out = off if upper else -off
    loose = plus(_whole(step, side.loose), shift + out)
    tight = plus(_whole(step, side.tight), shift - out)
    rounded = replace(side, loose=loose, tight=tight, slack=0.0, endless=True)
    return ("le" if upper else "ge"), rounded


def _multiplied(value: Expr, factor: Expr, endless: bool) -> Expr:
    """The product, within the limits where the value may be as large as these."""
    if not endless or isinstance(value, Literal):
        return times(value, factor)
    most = floor_divided(Literal(LIMIT), factor)
    return times(call("min", call("max", value, minus(most)), most), factor)


def _whole(step: str, value: Expr) -> Expr:
    """A real value rounded to an integer within the limits."""
    if is_integer(value):
        return value
    if isinstance(value, Literal):
        cut = min(max(float(value.value), -float(LIMIT)), float(LIMIT))
        return Literal(math.floor(cut) if step == "floor" else math.ceil(cut))
    return call(step, call("min", call("max", value, -float(LIMIT)), float(LIMIT)))


__all__ = ["LIMIT", "Condition", "Limit", "Residual", "Search", "bounds_of"]
