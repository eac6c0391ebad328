"""The value of an expression at one position of each axis, in plain Python.

Slow and obvious: what bounds and their tests are measured by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

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
from ...ir.host import FUNCTIONS
from ...ir.reductions import REPEATED, identity

Number = bool | int | float


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers for the names of an expression.

    ``tensors``: for each ref its dims in order and its entries, as nested sequences or anything
    that is indexed by a tuple (arrays, tensors).
    """

    sizes: Mapping[str, int]
    scalars: Mapping[str, Number] = field(default_factory=dict)
    tensors: Mapping[str, tuple[tuple[str, ...], Any]] = field(default_factory=dict)


def value_at(expr: Expr, at: Mapping[str, int], values: Values) -> Number:
    """``expr`` at the positions ``at``, which has one for each axis of it."""
    match expr:
        case Literal(value):
            return value
        case Size(dim):
            return values.sizes[dim]
        case Scalar(name):
            return values.scalars[name]
        case Index(dim):
            return at[dim]
        case Ref(name):
            dims, entries = values.tensors[name]
            return _entry(entries, tuple(at[dim] for dim in dims))
        case Call("where", (c, a, b)):
            return value_at(a if value_at(c, at, values) else b, at, values)
        case Call(fn, args):
            return FUNCTIONS[fn](*(value_at(a, at, values) for a in args))
        case Read():
            return _read(expr, at, values)
        case Reduce():
            return _reduced(expr, at, values)
        case Cumsum():
            return _accumulated(expr, at, values)
        case _:
            raise TypeError(type(expr).__name__)


def table_entries(table: Ref, dim: str, at: Mapping[str, int], values: Values) -> list[Number]:
    """The entries of a tensor along one dim, at fixed positions of its others."""
    dims, entries = values.tensors[table.name]
    return [
        _entry(entries, tuple(place if d == dim else at[d] for d in dims))
        for place in range(values.sizes[dim])
    ]


def _entry(entries: Any, place: tuple[int, ...]) -> Number:
    if isinstance(entries, Sequence):
        for index in place:
            entries = entries[index]
    else:
        entries = entries[place].item()
    number: Number = entries
    return number


def _read(read: Read, at: Mapping[str, int], values: Values) -> Number:
    moved = dict(at)
    for dim, index in read.at:
        place = int(value_at(index, at, values))
        if not 0 <= place < values.sizes[dim]:
            return read.fill if read.kind is Kind.REAL else int(read.fill)
        moved[dim] = place
    return value_at(read.x, moved, values)


def _reduced(reduce: Reduce, at: Mapping[str, int], values: Values) -> Number:
    total: Number = identity(reduce.op)
    if reduce.kind is Kind.INT and math.isfinite(total):
        total = int(total)
    for place in _places(reduce.over, values):
        here = {**at, **place}
        grouped = all(value_at(index, here, values) == at[dim] for dim, index in reduce.group)
        if grouped and (reduce.where is None or value_at(reduce.where, here, values)):
            total = FUNCTIONS[REPEATED[reduce.op]](total, value_at(reduce.x, here, values))
    return total


def _places(dims: Sequence[str], values: Values) -> Iterator[dict[str, int]]:
    for place in product(*(range(values.sizes[dim]) for dim in dims)):
        yield dict(zip(dims, place, strict=True))


def _accumulated(cumsum: Cumsum, at: Mapping[str, int], values: Values) -> Number:
    here, size = at[cumsum.over], values.sizes[cumsum.over]
    step = 0 if not cumsum.exclusive else 1
    places = range(here + step, size) if cumsum.reverse else range(here + 1 - step)
    return sum(value_at(cumsum.x, {**at, cumsum.over: place}, values) for place in places)
