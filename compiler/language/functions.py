"""The functions of the language: a table from name to the function that builds the term."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...ir.expression import ELEMENTWISE, Call, Expr, Index, Kind, Literal, Size, call
from . import expand
from .arguments import Arguments, Function
from .constants import constant
from .dims import Dims
from .expand import Group, Over
from .reading import read, read_axis
from .source import listed

# Functions of the language that a later version compiles.
LATER = frozenset("complex real imag conj solve grad".split())
_UNARY = (
    "exp exp2 expm1 log log2 log1p sqrt rsqrt tanh sigmoid logsigmoid softplus relu gelu gelu_tanh "
    "silu elu erf sin cos abs sign floor ceil round detach"
).split()


def _elementwise(a: Arguments) -> Expr:
    return a.dims.call(a.node.function, *a.values(), span=a.span)


def _where(a: Arguments) -> Expr:
    condition, yes, no = a.values()
    if condition.kind is not Kind.BOOL:
        raise a.error(a.place(0), "the condition of `where` is a number", do="compare it: `x != 0`")
    return a.dims.call("where", condition, yes, no, span=a.span)


def _clip(a: Arguments) -> Expr:
    x, low, high = a.values()
    return a.dims.call("min", a.dims.call("max", x, low), high, span=a.span)


def _group(a: Arguments, x: Expr, over: Over) -> Group:
    group: list[tuple[str, Expr]] = []
    for key, index in a.indices():
        if key.name in x.axes - set(over) or key.name in dict(group):
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
    axes = frozenset[str]().union(*(p.axes for p in parts if p is not None))
    for number, dim in enumerate(over):
        if dim not in axes:
            raise a.error(
                a.place(len(a) - len(over) + number),
                f"`{a.node.function}` over {dim}, which its argument does not have",
                allowed=f"its axes: {listed(sorted(axes))}" if axes else "it has no axes",
            )


Reduction = Callable[[Arguments, Expr, Over, Expr | None, Group], Expr]
RowReduction = Callable[[Dims, Expr, Over, Expr | None, Group, object], Expr]


def _reduction(reduce: Reduction) -> Callable[[Arguments], Expr]:
    def build(a: Arguments) -> Expr:
        x, where = a.value(0), a.where()
        over = _over(a, x)
        group = _group(a, x, over)
        _check_axes(a, over, x, where, *(index for _, index in group))
        return reduce(a, x, over, where, group)

    return build


def _plain_reduce(a: Arguments, x: Expr, over: Over, where: Expr | None, group: Group) -> Expr:
    if a.node.function in ("any", "all") and x.kind is not Kind.BOOL:
        raise a.error(a.place(0), f"`{a.node.function}` of a number", do="compare it: `x != 0`")
    return a.dims.reduce(a.node.function, x, over, where, group, a.span)


def _mean(a: Arguments, x: Expr, over: Over, where: Expr | None, group: Group) -> Expr:
    return expand.mean(a.dims, x, over, where, group, a.span)


def _norm(a: Arguments, x: Expr, over: Over, where: Expr | None, group: Group) -> Expr:
    return expand.norm(a.dims, x, over, where, group, a.span)


def _logsumexp(a: Arguments, x: Expr, over: Over, where: Expr | None, group: Group) -> Expr:
    return expand.logsumexp(a.dims, x, over, where, group, a.span)


def _extreme(a: Arguments) -> Expr:
    """``max`` and ``min``: a bare dim in second place means a reduction."""
    if a.is_dim(1) or len(a) == 1 or a.named or a.axes:
        return _reduction(_plain_reduce)(a)
    return expand.chain(a.dims, a.node.function, a.values(), a.span)


def _softmax(a: Arguments) -> Expr:
    x, where = a.value(0), a.where()
    over = _over(a, x)
    _check_axes(a, over, x, where)
    x, *rest = a.dims.align(x, *([] if where is None else [where]))
    return expand.softmax(a.dims, x, over, rest[0] if rest else None, a.span)


def _rank(a: Arguments) -> Expr:
    x, where = a.value(0), a.where()
    over = _over(a, x)
    _check_axes(a, over, x)
    return expand.rank(a.dims, x, over, where, a.span)


def _cumsum(a: Arguments) -> Expr:
    x, where, dim = a.value(0), a.where(), a.dim(1)
    _check_axes_at(a, 1, dim, x, where)
    reverse, exclusive = a.flag("reverse", 2), a.flag("exclusive", 3)
    return expand.cumsum(a.dims, x, dim, where, reverse, exclusive, a.span)


def _check_axes_at(a: Arguments, number: int, dim: str, *parts: Expr | None) -> None:
    axes = frozenset[str]().union(*(p.axes for p in parts if p is not None))
    if dim not in axes:
        raise a.error(
            a.place(number),
            f"`{a.node.function}` over {dim}, which its argument does not have",
            allowed=f"its axes: {listed(sorted(axes))}" if axes else "it has no axes",
        )


def _flip(a: Arguments) -> Expr:
    x, where = a.value(0), a.where()
    over = _over(a, x)
    _check_axes(a, over, x)
    if where is not None:
        x = a.dims.call("where", where, x, 0)
    return expand.flip(x, over, a.span)


def _normalised(build: Callable[..., Expr]) -> Callable[[Arguments], Expr]:
    def call_norm(a: Arguments) -> Expr:
        x = a.value(0)
        over = _over(a, x)
        _check_axes(a, over, x)
        return build(a.dims, x, over, a.option("eps") or Literal(0), a.span)

    return call_norm


def _at(a: Arguments) -> Expr:
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


def _rope(a: Arguments) -> Expr:
    x, pos, dim = a.value(0), a.value(1), a.dim(2)
    _check_axes_at(a, 2, dim, x)
    base = a.option("base") or (a.value(3) if len(a) > 3 else Literal(10000))
    if dim in pos.axes | base.axes:
        raise a.error(a.place(1), f"the position or the base of `rope` has the axis {dim} itself")
    x, pos, base = a.dims.align(x, pos, base)
    return expand.rope(a.dims, x, pos, dim, base, a.flag("interleaved", 4), a.span)


def _shift(a: Arguments) -> Expr:
    x, dim, places = a.value(0), a.dim(1), a.value(2)
    _check_axes_at(a, 1, dim, x)
    if places.kind is Kind.REAL:
        raise a.error(a.place(2), "`shift` by a real number", allowed="an integer")
    index = call("sub", Index(dim), places)
    return read(x, [(dim, index)], a.scope, a.span)


def _last(a: Arguments) -> Expr:
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


def _stack(a: Arguments) -> Expr:
    axis, values = a.dim(0), a.values(1)
    if any(axis in value.axes for value in values):
        raise a.error(a.place(0), f"a stacked value has the axis {axis} already")
    size = a.dims.sizes.setdefault(axis, Literal(len(values)))
    if axis not in a.dims.tensor and constant(size) not in (None, len(values)):
        raise a.error(
            a.span, f"{len(values)} values stacked along {axis}, which has the size {size}"
        )
    return expand.stack(a.dims, axis, values, a.span)


def _index(a: Arguments) -> Expr:
    return Index(a.dim(0), span=a.span)


def _logaddexp(a: Arguments) -> Expr:
    return expand.chain(a.dims, "logaddexp", a.values(), a.span)


def _acos(a: Arguments) -> Expr:
    return Call("acos", (a.value(0),), span=a.span)


_WHERE = frozenset({"where"})


def _reductions() -> Mapping[str, Function]:
    def entry(name: str, build: Reduction) -> Function:
        signature = f"{name}(x, D…, where=condition, N=index)"
        return Function(signature, _reduction(build), 1, None, _WHERE, dims=True)

    plain = {name: entry(name, _plain_reduce) for name in ("sum", "prod", "any", "all")}
    shaped = {
        "mean": entry("mean", _mean),
        "norm": entry("norm", _norm),
        "logsumexp": entry("logsumexp", _logsumexp),
    }
    extreme = {
        name: Function(
            f"{name}(a, b…) of values, {name}(x, D…, where=condition, N=index) over dims",
            _extreme,
            1,
            None,
            _WHERE,
            dims=True,
        )
        for name in ("max", "min")
    }
    return {**plain, **extreme, **shaped}


def _norms() -> Mapping[str, Function]:
    builds = {"layernorm": expand.layernorm, "rmsnorm": expand.rmsnorm, "l2norm": expand.l2norm}
    return {
        name: Function(f"{name}(x, D…, eps=0)", _normalised(build), 1, None, frozenset({"eps"}))
        for name, build in builds.items()
    }


FUNCTIONS: Mapping[str, Function] = {
    **{name: Function(f"{name}(x)", _elementwise) for name in _UNARY if name in ELEMENTWISE},
    "acos": Function("acos(x)", _acos),
    "where": Function("where(condition, a, b)", _where, 3, 3),
    "clip": Function("clip(x, low, high)", _clip, 3, 3),
    "logaddexp": Function("logaddexp(a, b…)", _logaddexp, 2, None),
    **_reductions(),
    **_norms(),
    "softmax": Function("softmax(x, D…, where=condition)", _softmax, 1, None, _WHERE),
    "rank": Function("rank(x, D…, where=condition)", _rank, 1, None, _WHERE),
    "flip": Function("flip(x, D…)", _flip, 1, None, _WHERE),
    "cumsum": Function(
        "cumsum(x, D, reverse=false, exclusive=false)",
        _cumsum,
        2,
        4,
        frozenset({"where", "reverse", "exclusive"}),
    ),
    "at": Function("at(x, T=index, …, fill=0)", _at, 1, 1, frozenset({"fill"}), dims=True),
    "rope": Function(
        "rope(x, position, D, base=10000, interleaved=false)",
        _rope,
        3,
        5,
        frozenset({"base", "interleaved"}),
    ),
    "shift": Function("shift(x, T, n)", _shift, 3, 3),
    "last": Function("last(x, T)", _last, 1, 2),
    "stack": Function("stack(S, a, b, …)", _stack, 2, None),
    "index": Function("index(D)", _index),
}

__all__ = ["FUNCTIONS", "LATER"]
