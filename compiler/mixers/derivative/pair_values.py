"""Values of pairs that attentions read by name, written out there; no meaning changes.

    let s = scale * sum(q * k, D);  score: s   -->   score: scale * sum(q * k, D)

The adjoint of a name is a value, and that of a pair one for each pair, of all that read it. Written
out, what reaches rows and keys by it is a sum over the pairs of each attention, with its mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ....ir.expression import Call, Expr, Kind, Reduce, Ref
from ....ir.mixer import Attention, Map, Mixer, Stage
from ....ir.rewriting import rebuild, walk
from ....ir.roles import query_axis


def pair_values_written_out(mixer: Mixer) -> Mixer:
    """The mixer with scores, weights and gains of attentions by rows and keys."""
    known = {let.name: let.value for let in mixer.lets}
    stages: list[Stage] = []
    for stage in mixer.stages:
        if isinstance(stage, Map):
            known |= {equation.name: equation.value for equation in stage.equations}
        if isinstance(stage, Attention) and stage.queries:
            stage = _changed(mixer, stage, known)
        stages.append(stage)
    return replace(mixer, stages=tuple(stages))


def _changed(mixer: Mixer, stage: Attention, known: Mapping[str, Expr]) -> Attention:
    query = query_axis(mixer, stage)
    if query is None:
        return stage
    pair = frozenset({stage.over, query})
    found = {name: value for name, value in known.items() if _is_of_pairs(value, pair)}
    score = _written_out(stage.score, found)
    gain = None if stage.gain is None else _written_out(stage.gain, found)
    return replace(stage, score=score, gain=gain)


def _written_out(expr: Expr, values: Mapping[str, Expr]) -> Expr:
    """Names that no sum and no read at another place is around."""
    match expr:
        case Ref(name) if name in values:
            return _written_out(values[name], values)
        case Call():
            return rebuild(expr, lambda part: _written_out(part, values))
    return expr


def _is_of_pairs(value: Expr, pair: frozenset[str]) -> bool:
    """Whether a value is made pair by pair of what rows and keys have: functions of numbers, and
    sums of products."""
    return value.kind is Kind.REAL and pair <= value.axes and _is_made_by_pair(value, pair)


def _is_made_by_pair(value: Expr, pair: frozenset[str]) -> bool:
    if not pair <= value.axes:
        return True
    match value:
        case Ref():
            return True
        case Call("detach"):
            return False
        case Call():
            return all(_is_made_by_pair(part, pair) for part in value.children)
        case Reduce("sum", x, over) if not pair & {*over}:
            of_pairs = (node for node in walk(x) if pair <= node.axes)
            return all(isinstance(node, Call) for node in of_pairs)
    return False


__all__ = ["pair_values_written_out"]
