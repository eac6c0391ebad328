"""The attention form."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.expression import Expr, Kind, Literal, Ref, call
from ...ir.mixer import Attention, Equation
from .definitions import check_annotation, flat, resolve
from .grammar import parse, parse_target
from .infer import truth
from .layouts import known_dim
from .names import check_name
from .positions import Text, clip
from .reading import scope_dim
from .renaming import Renaming
from .schema import AttentionSpec, NormalizeSpec
from .scope import Context, Scope
from .source import closest, listed

_NORMALIZERS = ("softmax", "none")


@dataclass(frozen=True)
class _Normalizer:
    weight: Expr
    denominator: Expr
    sink: Expr | None = None


def read_attention(
    spec: AttentionSpec, scope: Scope, name: str | None, renaming: Renaming
) -> Attention:
    """An attention stage.

    Raises:
        SpecError: clauses whose kinds or axes do not fit.
    """
    context = scope.context
    over = _over(spec, scope)
    score = _clause(spec, "score", spec.score, scope)
    mask = None if spec.mask is None else _clause(spec, "mask", spec.mask, scope)
    gain = None if spec.gain is None else _clause(spec, "gain", spec.gain, scope)
    if mask is not None and spec.mask is not None:
        truth(mask, "the mask", spec.mask)
    sink = _sink(spec, scope)
    values = {key: resolve(str(key), text, scope) for key, text in spec.output.items()}
    parts = [p for p in (score, mask, gain, sink, *values.values()) if p is not None]
    axes = frozenset[str]().union(*(p.axes for p in parts))
    lift = context.dims.lift
    score = lift(score, axes)
    mask = None if mask is None else lift(mask, axes)
    gain = None if gain is None else lift(gain, axes)
    sink = None if sink is None else lift(sink, axes)
    _check_over(spec, over, score, mask, sink)
    queries = frozenset[str]().union(
        *(p.axes for p in (score, mask, gain, sink) if p is not None)
    ) - {over}
    normalizer = _normalizer(spec, scope, score, queries, over)
    outputs = tuple(
        Equation(
            check_name(key.text, renaming.made(str(key)), context),
            lift(value, axes),
            flat(text),
            key.text.span,
        )
        for (key, text), value in zip(spec.output.items(), values.values(), strict=True)
    )
    return Attention(
        over,
        score,
        mask,
        normalizer.weight,
        normalizer.denominator,
        sink,
        gain,
        outputs,
        _label(spec.lse, renaming, context),
        _label(spec.weights, renaming, context),
        name,
        _texts(spec),
    )


def _over(spec: AttentionSpec, scope: Scope) -> str:
    if not isinstance(spec.over, Text):
        raise spec.over.source.error(
            spec.over.span,
            "not yet: a list in `over` is a part of the language that this version can't compile",
        )
    dims = scope.context.dims
    dim = scope_dim(parse(spec.over), scope) or known_dim(spec.over, dims.known)
    return dims.use(dim, spec.over.span)


def _clause(spec: AttentionSpec, name: str, text: Text, scope: Scope) -> Expr:
    _, axes, _ = parse_target(spec.key(name))
    value = resolve(f"the {name}", text, scope)
    check_annotation(f"the {name}", value, axes, scope.context)
    return value


def _check_over(
    spec: AttentionSpec, over: str, score: Expr, mask: Expr | None, sink: Expr | None
) -> None:
    axes = score.axes | (frozenset() if mask is None else mask.axes)
    if over not in axes:
        assert isinstance(spec.over, Text)
        raise spec.over.error(
            f"neither score nor mask has the axis {over}",
            allowed=f"their axes: {listed(sorted(axes)) or 'none'}",
        )
    if sink is not None and over in sink.axes and isinstance(spec.normalize, NormalizeSpec):
        assert spec.normalize.softmax is not None
        raise spec.normalize.softmax.sink.error(f"the sink has the key axis {over}")


def _sink(spec: AttentionSpec, scope: Scope) -> Expr | None:
    form = spec.normalize
    if not isinstance(form, NormalizeSpec) or form.softmax is None:
        return None
    return resolve("the sink", form.softmax.sink, scope)


def _normalizer(
    spec: AttentionSpec, scope: Scope, score: Expr, queries: frozenset[str], over: str
) -> _Normalizer:
    form = spec.normalize
    score_ref = Ref("score", score.axes, max(score.kind, Kind.INT))
    total = Ref("total", queries, Kind.REAL)
    softmax = _Normalizer(call("exp", score_ref), total)
    if form is None:
        return softmax
    if isinstance(form, Text):
        if form.value not in _NORMALIZERS:
            raise form.error(
                f"unknown normaliser `{clip(form.value)}`",
                allowed="softmax, none, {softmax: {sink: logit}}, {weight: …, denominator: …}",
                do=closest(form.value, _NORMALIZERS),
            )
        return softmax if form.value == "softmax" else _Normalizer(score_ref, Literal(1))
    if form.softmax is not None:
        if form.weight is not None or form.denominator is not None:
            raise form.key("softmax").error("a normaliser is either a softmax or a weight")
        return softmax
    return _general(form, scope, score_ref, total, over)


def _general(form: NormalizeSpec, scope: Scope, score: Ref, total: Ref, over: str) -> _Normalizer:
    if form.weight is None:
        raise form.block.source.error(
            form.block.span, "the normaliser has no `weight`", do="add `weight: …`"
        )
    inner = scope.child()
    inner.names["score"] = score
    weight = resolve("the weight", form.weight, inner)
    inner = scope.child()
    inner.names["total"] = total
    denominator: Expr = Literal(1)
    if form.denominator is not None:
        denominator = resolve("the denominator", form.denominator, inner)
    queries = total.axes
    weight = scope.context.dims.lift(weight, queries)
    denominator = scope.context.dims.lift(denominator, queries)
    _check_inside("weight", form.weight, weight, queries | {over})
    if form.denominator is not None:
        _check_inside("denominator", form.denominator, denominator, queries)
    return _Normalizer(weight, denominator)


def _check_inside(what: str, text: Text, value: Expr, axes: frozenset[str]) -> None:
    if extra := sorted(value.axes - axes):
        raise text.error(
            f"the {what} has the axes [{', '.join(sorted(value.axes))}]",
            allowed=f"those of score and mask: [{', '.join(sorted(axes))}]",
            do=f"a sum over {', '.join(extra)} is probably forgotten",
        )


def _label(text: Text | None, renaming: Renaming, context: Context) -> str | None:
    return None if text is None else check_name(text, renaming.made(text.value), context)


def _texts(spec: AttentionSpec) -> tuple[tuple[str, str], ...]:
    clauses = {"score": spec.score, "mask": spec.mask, "gain": spec.gain}
    found = [(name, flat(text)) for name, text in clauses.items() if text is not None]
    match spec.normalize:
        case Text() as text:
            found.append(("normalize", text.value))
        case NormalizeSpec(softmax=None) as form:
            pairs = (("weight", form.weight), ("denominator", form.denominator))
            found += [(name, flat(text)) for name, text in pairs if text is not None]
        case NormalizeSpec(softmax=softmax) if softmax is not None:
            found.append(("sink", flat(softmax.sink)))
    return tuple(found)


__all__ = ["read_attention"]
