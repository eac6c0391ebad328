"""What the language offers beyond the nodes of the IR, written in them."""

from __future__ import annotations

from functools import reduce as fold

from ....ir.expression import Cumsum, Expr, Index, Kind, Literal, Read, Size, Span, call, product_of
from ..names.dims import Dims

Over = tuple[str, ...]
Group = tuple[tuple[str, Expr], ...]
_INF = Literal(float("inf"))
_LOWEST = Literal(float("-inf"))
_ZERO = Literal(0)


def count(dims: Dims, over: Over, where: Expr | None, group: Group) -> Expr:
    """How many positions of ``over`` are admitted by ``where`` and ``group``."""
    parts = [*([] if where is None else [where]), *(index for _, index in group)]
    axes = frozenset[str]().union(*(p.axes for p in parts))
    inside = tuple(dim for dim in over if dim in axes)
    factors: list[Expr] = [Size(dim) for dim in over if dim not in axes]
    if parts:
        factors.append(dims.reduce("sum", Literal(1), inside, where, group))
    return product_of(factors)


def mean(dims: Dims, x: Expr, over: Over, where: Expr | None, group: Group, span: Span) -> Expr:
    """sum / count, 0 where nothing is admitted."""
    total = dims.reduce("sum", x, over, where, group, span)
    number = count(dims, over, where, group)
    if where is not None or group:
        number = call("max", number, 1)
    return dims.call("div", total, number, span=span)


def norm(dims: Dims, x: Expr, over: Over, where: Expr | None, group: Group, span: Span) -> Expr:
    """The Euclidean norm; its gradient at 0 is 0, as torch's, where that of a root is infinite."""
    square = dims.reduce("sum", call("mul", x, x), over, where, group)
    some = call("gt", square, 0)
    return call("where", some, call("sqrt", call("where", some, square, 1.0)), square, span=span)


def logsumexp(
    dims: Dims, x: Expr, over: Over, where: Expr | None, group: Group, span: Span
) -> Expr:
    """log(sum(exp(x))) by way of the largest; -inf where nothing is admitted."""
    top = call("detach", dims.reduce("max", x, over, where, group))
    shift = call("where", call("lt", call("abs", top), _INF), top, _ZERO)
    back: Expr = shift
    if group:  # each position reads the largest of its own group
        back = Read(shift, group)
    terms = dims.call("exp", dims.call("sub", x, back))
    total = dims.reduce("sum", terms, over, where, group)
    some = call("ne", total, 0)  # a NaN is something
    logarithm = dims.call("add", call("log", call("where", some, total, 1)), shift)
    return dims.call("where", some, logarithm, _LOWEST, span=span)


def softmax(dims: Dims, x: Expr, over: Over, where: Expr | None, span: Span) -> Expr:
    """exp(x - max) / sum; 0 where not admitted, also where nothing is."""
    top = call("detach", dims.reduce("max", x, over, where))
    if where is None:
        terms = dims.call("exp", dims.call("sub", x, top))
        return dims.call("div", terms, dims.reduce("sum", terms, over), span=span)
    gap = dims.call("where", where, dims.call("sub", x, top), _ZERO)
    terms = dims.call("where", where, call("exp", gap), _ZERO)
    total = dims.reduce("sum", terms, over)
    return dims.call("div", terms, call("where", call("ne", total, 0), total, 1), span=span)


def cumsum(
    dims: Dims, x: Expr, over: str, where: Expr | None, reverse: bool, exclusive: bool, span: Span
) -> Expr:
    """The running sum of what is admitted."""
    admitted = x if where is None else dims.call("where", where, x, _ZERO)
    return Cumsum(admitted, over, reverse, exclusive, span=span)


def rank(dims: Dims, x: Expr, over: Over, where: Expr | None, span: Span) -> Expr:
    """How many admitted values are larger, or equal and at a lower position."""
    others = {dim: dims.fresh(dim) for dim in over}
    at = tuple((dim, Index(other)) for dim, other in others.items())
    y = Read(x, at)
    admitted = None
    if where is not None:
        moved = tuple((dim, index) for dim, index in at if dim in where.axes)
        admitted = Read(where, moved) if moved else where
    tie = call("and", call("eq", y, x), call("lt", _flat(others.values()), _flat(others)))
    before = call("or", call("gt", y, x), tie)
    return dims.reduce("sum", before, tuple(others.values()), admitted, span=span)


def _flat(over: object) -> Expr:
    """The row-major position over several dims."""
    names = list(over)  # type: ignore[call-overload]
    place: Expr = Index(names[0])
    for dim in names[1:]:
        place = call("add", call("mul", place, Size(dim)), Index(dim))
    return place


def flip(x: Expr, over: Over, span: Span) -> Expr:
    """The other way round."""
    ends = ((dim, call("sub", call("sub", Size(dim), 1), Index(dim))) for dim in over)
    return Read(x, tuple(ends), span=span)


def layernorm(dims: Dims, x: Expr, over: Over, eps: Expr, span: Span) -> Expr:
    """(x - mean) / sqrt(variance + eps)."""
    centred = dims.call("sub", x, mean(dims, x, over, None, (), span))
    return rmsnorm(dims, centred, over, eps, span)


def rmsnorm(dims: Dims, x: Expr, over: Over, eps: Expr, span: Span) -> Expr:
    """x / sqrt(mean of squares + eps)."""
    square = mean(dims, call("mul", x, x), over, None, (), span)
    return dims.call("mul", x, call("rsqrt", dims.call("add", square, eps)), span=span)


def l2norm(dims: Dims, x: Expr, over: Over, eps: Expr, span: Span) -> Expr:
    """x / sqrt(sum of squares + eps)."""
    square = dims.reduce("sum", call("mul", x, x), over)
    return dims.call("mul", x, call("rsqrt", dims.call("add", square, eps)), span=span)


def rope(
    dims: Dims, x: Expr, pos: Expr, dim: str, base: Expr, interleaved: bool, span: Span
) -> Expr:
    """Pairs of ``dim`` turned by pos · base^(-2 f / D), f the number of the pair.

    Pairs are (d, d + D/2), or (2d, 2d + 1) where interleaved.
    """
    d, size = Index(dim), Size(dim)
    half = call("floordiv", size, 2)
    if interleaved:
        pair = call("floordiv", d, 2)
        partner = call("sub", call("add", d, 1), call("mul", 2, call("mod", d, 2)))
        first = call("eq", call("mod", d, 2), 0)
    else:
        pair = call("mod", d, half)
        partner = call("mod", call("add", d, half), size)
        first = call("lt", d, half)
    exponent = call("div", call("mul", -2, pair), size)
    frequency = dims.call("exp", dims.call("mul", call("log", base), exponent))
    angle = dims.call("mul", pos, frequency)
    other = Read(x, ((dim, partner),))
    turned = dims.call("mul", call("where", first, call("neg", other), other), call("sin", angle))
    return dims.call("add", dims.call("mul", x, call("cos", angle)), turned, span=span)


def stack(dims: Dims, axis: str, values: list[Expr], span: Span) -> Expr:
    """values[s] along the new axis ``axis``."""
    *before, last = dims.align(*values)
    whole = last
    for number, value in reversed(list(enumerate(before))):
        whole = dims.call("where", call("eq", Index(axis), number), value, whole, span=span)
    return whole


def chain(dims: Dims, fn: str, values: list[Expr], span: Span) -> Expr:
    """fn(fn(a, b), c) ..."""
    return fold(lambda a, b: dims.call(fn, a, b, span=span), values)


def as_number(x: Expr) -> Expr:
    """A boolean as 0 or 1, other values as they are."""
    return call("where", x, 1, 0) if x.kind is Kind.BOOL else x


__all__ = [
    "chain",
    "cumsum",
    "flip",
    "l2norm",
    "layernorm",
    "logsumexp",
    "mean",
    "norm",
    "rank",
    "rmsnorm",
    "rope",
    "softmax",
    "stack",
]
