"""Sums over lags: of a product whose one factor is read where a lag leads to from a row.

``sum(k[l] * x[T=t - l], L)`` is one, and so are its derivatives, ``sum(k[l] * dy[T=t + l], L)`` and
``sum(dy[t] * x[T=t - l], T)``, whose rows are l. What says so is the index: plus or minus a row,
plus or minus an axis that is summed over, and a number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ...ir.binding import Number
from ...ir.expression import (
    Call,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Scalar,
    call,
    product_of,
)
from ...ir.rewriting import transform
from .angles import Lengths, polynomial
from .linear import Linear, expression, linear


@dataclass(frozen=True, slots=True)
class LagSum:
    """``factor`` times the sum over ``lag`` of kernel[lag] * signal[place], along ``over``.

    place = row_sign * row + lag_sign * lag + offset; the sum runs over ``summed``, too.
    """

    factor: Expr
    kernel: Expr
    signal: Expr
    row: str
    lag: str
    over: str
    row_sign: int
    lag_sign: int
    offset: Expr
    summed: tuple[str, ...]


def lag_sums(expr: Expr) -> tuple[LagSum, ...] | None:
    """The sums over lags that ``expr``, a sum, is a sum of; None if some part of it is none."""
    match expr:
        case Reduce("sum", Call("add" | "sub" as fn, (a, b)), over, None, ()):
            left, right = (lag_sums(Reduce("sum", part, over)) for part in (a, b))
            if left is None or right is None:
                return None
            return (*left, *(right if fn == "add" else map(_negative, right)))
        case Reduce("sum", x, over, None, ()) if expr.kind is Kind.REAL:
            found = next((f for r in _moved(x) if (f := _lag_sum(x, over, r)) is not None), None)
            return None if found is None else (found,)
    return None


def with_numbers(expr: Expr, params: Mapping[str, Number]) -> Expr:
    """Integers in place of params: they say where the terms of a sum are, or how long an axis is.

    ``sum(w * x[T=t - dilation * k], K)`` --> ``sum(w * x[T=t - 1 * k], K)``, a sum over lags.
    """

    def change(node: Expr) -> Expr | None:
        if isinstance(node, Scalar) and node.kind is Kind.INT and node.name in params:
            return Literal(params[node.name])
        return None

    return transform(expr, change)


def circular_sum(expr: Reduce, lengths: Lengths) -> LagSum | None:
    """``sum(k[l] * x[T=(t - l) % T], L)`` for axes of one length; None where that is not all.

    The place of the result is where a lag leads to, counted around the end.
    """
    if expr.op != "sum" or expr.where is not None or expr.group or expr.kind is not Kind.REAL:
        return None
    for read in _moved(expr.x):
        ((axis, index),) = read.at
        match index:
            case Call("mod", (place, length)):
                if polynomial(length, lengths) != lengths.of(axis):
                    continue
                straight = Read(read.x, ((axis, place),))
                found = _lag_sum(_with(expr.x, read, straight), expr.over, straight)
                if found is not None and _is_around(found, lengths):
                    return found
    return None


def _with(expr: Expr, read: Read, other: Read) -> Expr:
    """An expression with one read in place of another."""
    return transform(expr, lambda node: other if node == read else None)


def _is_around(one: LagSum, lengths: Lengths) -> bool:
    same = all(lengths.are_equal(dim, one.over) for dim in (one.row, one.lag))
    return same and one.offset == Literal(0)


def _negative(one: LagSum) -> LagSum:
    return replace(one, factor=call("neg", one.factor))


def _moved(product: Expr) -> Iterator[Read]:
    """Factors that are reads at one place, 0 outside."""
    match product:
        case Call("mul", (a, b)):
            yield from _moved(a)
            yield from _moved(b)
        case Call("neg" | "div", (a, *_)):
            yield from _moved(a)
        case Read(_, (_,), 0.0):
            yield product


def _lag_sum(product: Expr, over: tuple[str, ...], read: Read) -> LagSum | None:
    ((axis, index),) = read.at
    form = linear(index)
    signs = {t.dim: c for t, c in form.terms if isinstance(t, Index)}
    lags, rows = [d for d in signs if d in over], [d for d in signs if d not in over]
    if len(lags) != 1 or len(rows) != 1 or not {*signs.values()} <= {1, -1}:
        return None
    (lag,), (row,) = lags, rows
    offset = Linear(tuple(t for t in form.terms if not isinstance(t[0], Index)), form.constant)
    if any(term.axes for term, _ in offset.terms):
        return None
    factors = list(_factors(product, row, lag))
    signal = [f.x for f in factors if isinstance(f, Read) and f.at == read.at]
    summed = tuple(d for d in over if d != lag)
    rest = [f for f in factors if not (isinstance(f, Read) and f.at == read.at)]
    kernel = [f for f in rest if not f.axes.isdisjoint(over)]
    outside = [f for f in rest if f.axes.isdisjoint(over)]
    # A read that takes the row's place away has it in no other axis.
    taken = frozenset[str]().union(*(x.axes - {axis} for x in signal))
    if any(row in f.axes for f in kernel) or taken & {row, lag} or not kernel:
        return None
    near, far = product_of(kernel), product_of(signal)
    if {near.kind, far.kind} != {Kind.REAL} or lag not in near.axes:
        return None
    if axis not in far.axes or not {*summed} <= near.axes | far.axes:
        return None
    return LagSum(
        product_of(outside),
        near,
        far,
        row,
        lag,
        axis,
        int(signs[row]),
        int(signs[lag]),
        expression(offset),
        summed,
    )


def _factors(product: Expr, row: str, lag: str) -> Iterator[Expr]:
    """Factors, whole where they lack the row or the lag."""
    match product:
        case Call("mul", (a, b)) if {row, lag} <= product.axes:
            yield from _factors(a, row, lag)
            yield from _factors(b, row, lag)
        case Call("neg", (a,)) if {row, lag} <= product.axes:
            yield Literal(-1.0)
            yield from _factors(a, row, lag)
        case Call("div", (a, b)) if {row, lag} <= product.axes:
            yield call("div", 1.0, b)
            yield from _factors(a, row, lag)
        case _:
            yield product


__all__ = ["LagSum", "circular_sum", "lag_sums"]
