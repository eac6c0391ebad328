"""Terms of two positions that depend on their distance alone, as terms of one axis of distances.

At place ``r`` of the axis lies the distance ``i - j = r - J``: so ``r = i - j + J`` is within
``1 ... I + J - 1``, and neighbours along ``i``, whose blocks fill vectors, are neighbours there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...ir.expression import (
    TRANSCENDENTAL,
    Call,
    Cumsum,
    Expr,
    Index,
    Literal,
    Read,
    Reduce,
    Size,
    Solve,
    call,
)
from ...ir.rewriting import rebuild, walk
from .linear import is_integer, linear, minus, plus, times

_COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})


@dataclass(frozen=True, slots=True)
class Distances:
    """The distances ``i - j`` of the rows ``i`` of one axis from the ``j`` of another."""

    row: str
    key: str
    dim: str  # the axis of distances

    @property
    def count(self) -> Expr:
        """How many places the axis has; the first is none that two positions have."""
        return call("add", Size(self.row), Size(self.key))

    @property
    def place(self) -> Expr:
        """Where the distance of two positions lies."""
        return plus(Index(self.row), Size(self.key), minus(Index(self.key)))

    @property
    def pair(self) -> frozenset[str]:
        """The two axes."""
        return frozenset({self.row, self.key})

    def replaced(self, expr: Expr, store: Callable[[Expr, Expr], Expr]) -> Expr:
        """``expr`` with ``store(term, part)``, read at the pair's place, for every largest part of
        it that the distance alone decides and that is costly; ``term`` is it along the axis.

        Not for a part of an index: a load that waits for another is not fetched ahead.
        """
        if not expr.axes >= self.pair or isinstance(expr, Reduce | Cumsum | Solve):
            return expr
        term = self.term(expr) if self.is_costly(expr) else None
        if term is not None:
            return Read(store(term, expr), ((self.dim, self.place),))
        if isinstance(expr, Read):
            return expr
        return rebuild(expr, lambda child: self.replaced(child, store))

    def is_costly(self, expr: Expr) -> bool:
        """Whether a pair's value takes more than the load that would replace it: a function of
        many operations, or a read at a place that loads don't go through in order."""
        return any(
            node.axes >= self.pair
            and (
                (isinstance(node, Call) and node.fn in TRANSCENDENTAL)
                or (isinstance(node, Call) and node.fn == "pow" and not _is_number(node.args[1]))
                or (isinstance(node, Read) and any(map(self._is_scattered, _indices(node))))
            )
            for node in walk(expr)
        )

    def _is_scattered(self, index: Expr) -> bool:
        terms = [term for term, _ in linear(index).terms if term.axes & self.pair]
        return not all(isinstance(term, Index) for term in terms)

    def term(self, expr: Expr) -> Expr | None:
        """``expr`` at the places of the axis; None where it depends on more than the distance."""
        if not expr.axes & self.pair:
            return expr
        match expr:
            case Index() | Reduce() | Cumsum() | Solve():
                return None
            case Read(x, at, fill):
                indices = [(dim, self.term(index)) for dim, index in at]
                known = tuple((dim, index) for dim, index in indices if index is not None)
                if len(known) < len(at) or (x.axes - {dim for dim, _ in at}) & self.pair:
                    return None
                return Read(x, known, fill, span=expr.span)
            case Call(fn, args):
                terms = [term for term in map(self.term, args) if term is not None]
                if len(terms) == len(args):
                    return call(fn, *terms)
                if fn in _COMPARISONS and all(map(is_integer, args)):
                    gap = self._sum(call("sub", *args))
                    return None if gap is None else call(fn, gap, 0)
                return self._sum(expr) if is_integer(expr) else None
            case _:
                return None

    def _sum(self, expr: Expr) -> Expr | None:
        """A sum of integers in which the two positions meet with opposite signs."""
        form = linear(expr)
        factors = dict(form.terms)
        rows, keys = factors.get(Index(self.row), 0), factors.get(Index(self.key), 0)
        if not rows or rows + keys:
            return None
        rest = form.without(Index(self.row)).without(Index(self.key))
        parts = [(self.term(term), factor) for term, factor in rest.terms]
        known = [times(term, factor) for term, factor in parts if term is not None]
        if len(known) < len(parts):
            return None
        distance = plus(Index(self.dim), minus(Size(self.key)))
        return plus(times(distance, rows), *known, form.constant)


def _indices(read: Read) -> list[Expr]:
    return [index for _, index in read.at]


def _is_number(expr: Expr) -> bool:
    return isinstance(expr, Literal)


def lies_within(index: Expr, size: Expr) -> bool:
    """Whether a sum of positions is always a place of an axis of ``size``, by its terms alone."""
    lowest, highest = plus(), plus()
    for term, factor in linear(index).terms:
        last = plus(Size(term.dim), -1) if isinstance(term, Index) else term
        first = Literal(0) if isinstance(term, Index) else term
        lowest = plus(lowest, times(first if factor > 0 else last, factor))
        highest = plus(highest, times(last if factor > 0 else first, factor))
    constant = linear(index).constant
    room = plus(size, -1, minus(highest), -constant)
    return _is_nonnegative_sum(plus(lowest, constant)) and _is_nonnegative_sum(room)


def _is_nonnegative_sum(expr: Expr) -> bool:
    form = linear(expr)
    return form.constant >= 0 and all(
        isinstance(term, Size) and factor > 0 for term, factor in form.terms
    )


__all__ = ["Distances", "lies_within"]
