"""How each function's call becomes a term: its arguments checked, then expanded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

from ....ir.expression import Expr, Index, Kind, Literal, Size, call
from ...mixers.running import Op, running
from ..names.constants import constant
from ..names.scope import Barred
from ..text.source import listed
from ..text.surface import Name
from . import expand
from .arguments import Arguments
from .expand import Group, Over
from .reading import read, read_axis


def elementwise(a: Arguments) -> Expr:
    """A function of one value."""
    return a.dims.call(a.node.function, *a.values(), span=a.span)


def where(a: Arguments) -> Expr:
    """``where(condition, a, b)``."""
    condition, yes, no = a.values()
    if condition.kind is not Kind.BOOL:
        raise a.error(a.place(0), "the condition of `where` is a number", do="compare it: `x != 0`")
    return a.dims.call("where", condition, yes, no, span=a.span)


def clip(a: Arguments) -> Expr:
    """``clip(x, low, high)``."""
    x, low, high = a.values()
    return a.dims.call("min", a.dims.call("max", x, low), high, span=a.span)


def lerp(a: Arguments) -> Expr:
    """``lerp(x, y, w)`` is ``x + w * (y - x)``."""
    x, y, w = a.values()
    step = a.dims.call("mul", w, a.dims.call("sub", y, x))
    return a.dims.call("add", x, step, span=a.span)


def _group(a: Arguments, x: Expr, over: Over, where: Expr | None) -> Group:
    group: list[tuple[str, Expr]] = []
    indices = a.indices()
    parts = [x, *([] if where is None else [where]), *(index for _, index in indices)]
    kept = frozenset[str]().union(*(p.axes for p in parts)) - set(over)
    for key, index in indices:
        if key.name in kept or key.name in dict(group):
            raise a.error(key.span, f"the value reduced already has the axis {key.name}")
        group.append((key.name, index))
    return tuple(group)


def _over(a: Arguments, x: Expr, start: int = 1) -> Over:
    if len(a) <= start:
        raise a.error(
            a.span,
            f"`{a.node.function}` names no dim",
            allowed=a.function.signature,
            do=f"name the dims: its argument has {listed(sorted(x.axes)) or 'no axes'}",
        )
    return a.over(start)


def _check_axes(a: Arguments, over: Over, *parts: Expr | None) -> None:
    for number, dim in enumerate(over, start=len(a) - len(over)):
        _check_axes_at(a, number, dim, *parts)


EXTREMES: tuple[Op, ...] = ("max", "min")
Reduction = Callable[[Arguments, Expr, Over, Expr | None, Group], Expr]


def reduction(reduce: Reduction) -> Callable[[Arguments], Expr]:
    """The builder for a reduction: x, the dims, ``where=`` and the group, checked."""

    def build(a: Arguments) -> Expr:
        x, where = a.value(0), a.where()
        over = _over(a, x)
        group = _group(a, x, over, where)
        _check_axes(a, over, x, where, *(index for _, index in group))
        return reduce(a, x, over, where, group)

    return build


def plain_reduce(a: Arguments, x: Expr, over: Over, where: Expr | None, group: Group) -> Expr:
    """A reduction that the IR has."""
    if a.node.function in ("any", "all") and x.kind is not Kind.BOOL:
        raise a.error(a.place(0), f"`{a.node.function}` of a number", do="compare it: `x != 0`")
    return a.dims.reduce(a.node.function, x, over, where, group, a.span)


def mean(a: Arguments, x: Expr, over: Over, where: Expr | None, group: Group) -> Expr:
    """The mean of what is admitted."""
    return expand.mean(a.dims, x, over, where, group, a.span)


def norm(a: Arguments, x: Expr, over: Over, where: Expr | None, group: Group) -> Expr:
    """The Euclidean norm."""
    return expand.norm(a.dims, x, over, where, group, a.span)


def logsumexp(a: Arguments, x: Expr, over: Over, where: Expr | None, group: Group) -> Expr:
    """log(sum(exp(x)))."""
    return expand.logsumexp(a.dims, x, over, where, group, a.span)


def extreme(a: Arguments) -> Expr:
    """``max`` and ``min``: a bare dim in second place means a reduction."""
    if a.is_dim(1) or len(a) == 1 or a.named or a.axes:
        return reduction(plain_reduce)(a)
    return expand.chain(a.dims, a.node.function, a.values(), a.span)


def softmax(a: Arguments) -> Expr:
    """A row function: softmax along dims."""
    x, where = a.value(0), a.where()
    over = _over(a, x)
    _check_axes(a, over, x, where)
    x, *rest = a.dims.align(x, *([] if where is None else [where]))
    return expand.softmax(a.dims, x, over, rest[0] if rest else None, a.span)


def rank(a: Arguments) -> Expr:
    """A row function: the place in falling order."""
    x, where = a.value(0), a.where()
    over = _over(a, x)
    _check_axes(a, over, x)
    return expand.rank(a.dims, x, over, where, a.span)


def cumsum(a: Arguments) -> Expr:
    """A row function: the running sum."""
    x, where, dim = a.value(0), a.where(), a.dim(1)
    _check_axes_at(a, 1, dim, x, where)
    reverse, exclusive = a.flag("reverse", 2), a.flag("exclusive", 3)
    return expand.cumsum(a.dims, x, dim, where, reverse, exclusive, a.span)


def running_extreme(op: Op) -> Callable[[Arguments], Expr]:
    """``cummax(x, T)``: a recurrence before the stage that reads it."""

    def build(a: Arguments) -> Expr:
        x, where, dim = a.value(0), a.where(), a.dim(1)
        _check_axes_at(a, 1, dim, x, where)
        reverse, exclusive = a.flag("reverse", 2), a.flag("exclusive", 3)
        if where is not None:
            x = a.dims.call("where", where, x, Literal(-inf if op == "max" else inf))
        if x.kind is not Kind.REAL:
            x = call("mul", x, Literal(1.0))
        context = a.scope.context
        key = (op, x, dim, reverse, exclusive)
        if key not in context.running:

            def name(what: str) -> str:
                made = context.unused(f"{a.node.function}_{what}")
                context.results.add(made)
                return made

            stages, context.running[key] = running(op, x, dim, reverse, exclusive, name)
            context.pending += stages
        return replace(context.running[key], span=a.span)

    return build


def _check_axes_at(a: Arguments, number: int, dim: str, *parts: Expr | None) -> None:
    axes = frozenset[str]().union(*(p.axes for p in parts if p is not None))
    if dim not in axes:
        raise a.error(
            a.place(number),
            f"`{a.node.function}` over {dim}, which its argument does not have",
            allowed=f"its axes: {listed(sorted(axes))}" if axes else "it has no axes",
            do=f"for the size of {dim} write `({dim})`" if a.node.function in EXTREMES else None,
        )


def flip(a: Arguments) -> Expr:
    """A row function: the other way round."""
    x, where = a.value(0), a.where()
    over = _over(a, x)
    _check_axes(a, over, x)
    if where is not None:
        x = a.dims.call("where", where, x, 0)
    return expand.flip(x, over, a.span)


def normalised(build: Callable[..., Expr]) -> Callable[[Arguments], Expr]:
    """The builder for a norm without weights."""

    def call_norm(a: Arguments) -> Expr:
        x = a.value(0)
        over = _over(a, x)
        _check_axes(a, over, x)
        return build(a.dims, x, over, a.option("eps") or Literal(0), a.span)

    return call_norm


def at(a: Arguments) -> Expr:
    """``at(x, T=index, fill=0)``."""
    x = a.value(0)
    indices = a.indices()
    if not indices:
        raise a.error(a.span, "`at` names no axis to read at", allowed=a.function.signature)
    at: list[tuple[str, Expr]] = []
    for key, index in indices:
        dim = read_axis(x, key, a.scope)
        if dim in dict(at):
            raise a.error(key.span, f"{dim} is read at twice")
        at.append((dim, index))
    return read(x, at, a.scope, a.span, _fill(a))


def _fill(a: Arguments) -> float:
    if (value := a.option("fill")) is None:
        return 0.0
    number = constant(value)
    if number is None:
        raise a.error(a.named["fill"].span, "`fill=` must be a number")
    return float(number)


def rope(a: Arguments) -> Expr:
    """``rope(x, position, D)``."""
    x, pos, dim = a.value(0), a.value(1), a.dim(2)
    _check_axes_at(a, 2, dim, x)
    base = a.option("base") or (a.value(3) if len(a) > 3 else Literal(10000))
    if dim in pos.axes | base.axes:
        raise a.error(a.place(1), f"the position or the base of `rope` has the axis {dim} itself")
    x, pos, base = a.dims.align(x, pos, base)
    return expand.rope(a.dims, x, pos, dim, base, a.flag("interleaved", 4), a.span)


def shift(a: Arguments) -> Expr:
    """``shift(x, T, n)``: the value n places earlier."""
    x, dim, places = a.value(0), a.dim(1), a.value(2)
    _check_axes_at(a, 1, dim, x)
    if places.kind is Kind.REAL:
        raise a.error(a.place(2), "`shift` by a real number", allowed="an integer")
    index = call("sub", Index(dim), places)
    return read(x, [(dim, index)], a.scope, a.span)


def last(a: Arguments) -> Expr:
    """The value at the last position."""
    if (state := _last_state(a)) is not None:
        return state
    x = a.value(0)
    if len(a) > 1:
        dim = a.dim(1)
        _check_axes_at(a, 1, dim, x)
    else:
        positions = sorted(d for d in x.axes if d in a.dims.sequences)
        if len(positions) != 1:
            raise a.error(
                a.span,
                "`last` of a value without one axis that is a position of a sequence",
                do=f"name the axis: `last(x, {(sorted(x.axes) or ['T'])[0]})`",
            )
        dim = positions[0]
    return read(x, [(dim, call("sub", Size(dim), 1))], a.scope, a.span)


def _last_state(a: Arguments) -> Expr | None:
    """What an earlier recurrence's state was after its last row, if ``last`` is of one."""
    node = a.node.args[0]
    if len(a) > 1 or not isinstance(node, Name):
        return None
    binding = a.scope.find(node.name)
    return binding.value if isinstance(binding, Barred) else None


def stack(a: Arguments) -> Expr:
    """``stack(S, a, b)``: a new axis."""
    axis, values = a.dim(0), a.values(1)
    if any(axis in value.axes for value in values):
        raise a.error(a.place(0), f"a stacked value has the axis {axis} already")
    size = a.dims.sizes.setdefault(axis, Literal(len(values)))
    if axis not in a.dims.tensor and constant(size) not in (None, len(values)):
        raise a.error(
            a.span, f"{len(values)} values stacked along {axis}, which has the size {size}"
        )
    return expand.stack(a.dims, axis, values, a.span)


def concat(a: Arguments) -> Expr:
    """``concat(U, a, b)``: values end to end along a new axis."""
    axis, *joined = a.dim(0), *_joined(a)
    size: Expr = Literal(0)
    found: Expr | None = None
    for value, dim in joined:
        piece = read(value, [(dim, call("sub", Index(axis), size))], a.scope, a.span)
        before = call("lt", Index(axis), size)
        found = piece if found is None else a.dims.call("where", before, found, piece, span=a.span)
        size = call("add", size, Size(dim))
    a.dims.sizes.setdefault(axis, size)
    assert found is not None
    return found


def _joined(a: Arguments) -> list[tuple[Expr, str]]:
    """The values of ``concat`` with the axis of each: one named after it, or its only own one."""
    places = [n for n in range(1, len(a)) if not a.is_dim(n)]
    values = {n: a.value(n) for n in places}
    if len(places) < 2 or places[0] != 1:
        raise a.error(a.span, "`concat` of fewer than two values", allowed=a.function.signature)
    shared = frozenset[str].intersection(*(value.axes for value in values.values()))
    found = []
    for number, value in values.items():
        own = sorted(value.axes - shared)
        if a.is_dim(number + 1):
            own = [a.dim(number + 1)]
            _check_axes_at(a, number + 1, own[0], value)
        if len(own) != 1:
            raise a.error(
                a.place(number),
                f"`concat` can't tell which axis of this value goes end to end: "
                f"{f'{listed(own)} are its own' if own else 'the others have all of them'}",
                allowed=f"its axes: {listed(sorted(value.axes))}",
                do=f"name it after the value: `concat({a.dim(0)}, …, "
                f"{(own or sorted(value.axes) or ['T'])[0]}, …)`",
            )
        found.append((value, own[0]))
    return found


def index(a: Arguments) -> Expr:
    """``index(D)``."""
    return Index(a.dim(0), span=a.span)


def logaddexp(a: Arguments) -> Expr:
    """log(exp(a) + exp(b) + ...)."""
    return expand.chain(a.dims, "logaddexp", a.values(), a.span)


__all__ = [
    "EXTREMES",
    "Reduction",
    "at",
    "clip",
    "concat",
    "cumsum",
    "elementwise",
    "extreme",
    "flip",
    "index",
    "last",
    "logaddexp",
    "logsumexp",
    "mean",
    "norm",
    "normalised",
    "plain_reduce",
    "rank",
    "reduction",
    "rope",
    "running_extreme",
    "shift",
    "softmax",
    "stack",
    "where",
]
