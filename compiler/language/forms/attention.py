"""The attention form."""

from __future__ import annotations

from ....ir.expression import Expr, Kind, Literal, Ref, call
from ....ir.mixer import Attention, Equation
from ..names.definitions import check_annotation, flat, resolve
from ..names.names import check_name
from ..names.scope import Scope
from ..schema import AttentionSpec, NormalizeSpec, Word
from ..terms.infer import truth
from ..text.grammar import parse_target
from ..text.positions import Text, clip
from ..text.source import closest, listed
from .over import Over, read_over
from .renaming import Renaming

_NORMALIZERS = ("softmax", "none")


def read_attention(
    spec: AttentionSpec, scope: Scope, name: str | None, renaming: Renaming
) -> Attention:
    """An attention stage.

    Raises:
        SpecError: clauses whose kinds or axes do not fit.
    """
    if not spec.output and spec.lse is None and spec.weights is None:
        raise spec.block.source.error(
            spec.block.span, "the attention makes nothing", do="add `output: {o: v}`"
        )
    over = read_over(spec.over, spec.key("over"), scope)
    clauses, values = _aligned(spec, scope)
    _check_over(spec, over, clauses)
    queries = frozenset[str]().union(*(value.axes for value in clauses.values())) - {*over.dims}
    weight, denominator = _normalizer(spec, scope, clauses["score"], queries, over)
    clauses = {name: over.folded(value) for name, value in clauses.items()}
    values = {key: over.folded(value) for key, value in values.items()}
    return Attention(
        over=over.axis,
        score=clauses["score"],
        mask=clauses.get("mask"),
        weight=weight,
        denominator=denominator,
        sink=clauses.get("sink"),
        gain=clauses.get("gain"),
        outputs=tuple(
            Equation(_made(key.text, renaming, scope), value, flat(spec.output[key]), key.text.span)
            for key, value in values.items()
        ),
        lse=None if spec.lse is None else _made(spec.lse, renaming, scope),
        weights=None if spec.weights is None else _made(spec.weights, renaming, scope),
        name=name,
        texts=_texts(spec),
    )


def _aligned(spec: AttentionSpec, scope: Scope) -> tuple[dict[str, Expr], dict[Word, Expr]]:
    """Score, mask, gain and sink, as far as given, and the outputs' values; head groups lifted."""
    texts = {"score": spec.score, "mask": spec.mask, "gain": spec.gain}
    clauses = {
        name: _clause(spec, name, text, scope) for name, text in texts.items() if text is not None
    }
    if spec.mask is not None:
        truth(clauses["mask"], "the mask", spec.mask)
    if isinstance(spec.normalize, NormalizeSpec) and spec.normalize.softmax is not None:
        clauses["sink"] = resolve("the sink", spec.normalize.softmax.sink, scope)
    values = {key: resolve(str(key), text, scope) for key, text in spec.output.items()}
    axes = frozenset[str]().union(*(e.axes for e in (*clauses.values(), *values.values())))
    lift = scope.context.dims.lift
    return (
        {name: lift(value, axes) for name, value in clauses.items()},
        {key: lift(value, axes) for key, value in values.items()},
    )


def _made(text: Text, renaming: Renaming, scope: Scope) -> str:
    return check_name(text, renaming.made(text.value), scope.context)


def _clause(spec: AttentionSpec, name: str, text: Text, scope: Scope) -> Expr:
    _, axes, _ = parse_target(spec.key(name))
    value = resolve(f"the {name}", text, scope)
    check_annotation(f"the {name}", value, axes, scope.context)
    return value


def _check_over(spec: AttentionSpec, over: Over, clauses: dict[str, Expr]) -> None:
    pair = [clauses[name].axes for name in ("score", "mask") if name in clauses]
    axes = frozenset[str]().union(*pair)
    places = (spec.over,) if isinstance(spec.over, Text) else spec.over
    for dim, place in zip(over.dims, places, strict=True):
        if dim not in axes:
            raise place.source.error(
                place.span,
                f"neither score nor mask has the axis {dim}",
                allowed=f"their axes: {listed(sorted(axes)) or 'none'}",
            )
    if "sink" in clauses and (keys := sorted({*over.dims} & clauses["sink"].axes)):
        assert isinstance(spec.normalize, NormalizeSpec)
        assert spec.normalize.softmax is not None
        raise spec.normalize.softmax.sink.error(f"the sink has the key axis {keys[0]}")


def _normalizer(
    spec: AttentionSpec, scope: Scope, score: Expr, queries: frozenset[str], over: Over
) -> tuple[Expr, Expr]:
    """Weight and denominator."""
    form = spec.normalize
    score_ref = Ref("score", score.axes, max(score.kind, Kind.INT))
    total = Ref("total", queries, Kind.REAL)
    softmax = call("exp", over.folded_score(score_ref)), total
    if form is None:
        return softmax
    if isinstance(form, Text):
        if form.value not in _NORMALIZERS:
            raise form.error(
                f"unknown normaliser `{clip(form.value)}`",
                allowed="softmax, none, {softmax: {sink: logit}}, {weight: …, denominator: …}",
                do=closest(form.value, _NORMALIZERS),
            )
        return softmax if form.value == "softmax" else (over.folded_score(score_ref), Literal(1))
    if form.softmax is None:
        return _general(form, scope, score_ref, total, over)
    if form.weight is not None or form.denominator is not None:
        raise form.key("softmax").error("a normaliser is either a softmax or a weight")
    return softmax


def _general(
    form: NormalizeSpec, scope: Scope, score: Ref, total: Ref, over: Over
) -> tuple[Expr, Expr]:
    if form.weight is None:
        raise form.block.source.error(
            form.block.span, "the normaliser has no `weight`", do="add `weight: …`"
        )
    inner = scope.child()
    inner.names["score"] = score
    weight = resolve("the weight", form.weight, inner)
    inner.names["total"] = total
    denominator: Expr = Literal(1)
    if form.denominator is not None:
        denominator = resolve("the denominator", form.denominator, inner)
    queries = total.axes
    weight = scope.context.dims.lift(weight, queries)
    denominator = scope.context.dims.lift(denominator, queries)
    _check_inside("weight", form.weight, weight, queries | {*over.dims})
    if form.denominator is not None:
        _check_inside("denominator", form.denominator, denominator, queries)
        denominator = over.folded_pairs(denominator, form.denominator)
    return over.folded_pairs(weight, form.weight), denominator


def _check_inside(what: str, text: Text, value: Expr, axes: frozenset[str]) -> None:
    if extra := sorted(value.axes - axes):
        raise text.error(
            f"the {what} has the axes [{', '.join(sorted(value.axes))}]",
            allowed=f"those of score and mask: [{', '.join(sorted(axes))}]",
            do=f"a sum over {', '.join(extra)} is probably forgotten",
        )


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
