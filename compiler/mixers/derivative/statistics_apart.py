"""What a normaliser asks of other pairs, as equations before its attention; no meaning changes.

Weights that look at a row's sum or maximum have no adjoint of their own; what they look at has one,
as any equation has, and so have weights that are given it:

    weight: w(score, sum(f(score), J))  -->  s = sum(f(score), J, where=mask);  weight: w(score, s)

A row that sees nothing has no weights, whatever is made of it, and a key that nothing sees none
either. They get 1 for what there is nothing to sum up of: a quotient by 0, or a maximum of -inf,
would be a nan in their part of a gradient.
"""

from __future__ import annotations

from dataclasses import replace

from ....ir.expression import Expr, Index, Kind, Reduce, Ref, call
from ....ir.mixer import Attention, Equation, Map, Mixer, Stage
from ....ir.rewriting import with_names
from ....ir.roles import query_axis
from ....ir.stages import names_taken, unused_name
from ...analysis import normaliser
from ...analysis.facts import facts_of
from ...analysis.linear import plus
from ...analysis.masks.ranges import key_ranges
from ...analysis.row_reach import is_at_most_zero


def statistics_apart(mixer: Mixer) -> Mixer:
    """The mixer with a map before each attention whose weights look at other pairs."""
    taken = names_taken(mixer)
    stages: list[Stage] = []
    for stage in mixer.stages:
        stages += _apart(mixer, stage, taken) if isinstance(stage, Attention) else [stage]
    return replace(mixer, stages=tuple(stages))


def _apart(mixer: Mixer, stage: Attention, taken: set[str]) -> list[Stage]:
    statistics, named = normaliser.statistics_apart(stage)
    if not statistics:
        return [named]
    known: dict[str, Expr] = {"score": stage.score}
    equations: list[Equation] = []

    def name(stem: str, value: Expr) -> Ref:
        equations.append(Equation(unused_name(stem, taken), value))
        return Ref(equations[-1].name, value.axes, value.kind)

    never_empty = _sees_itself(mixer, stage)
    seen: dict[Expr, Expr] = {}
    for stem, reduce in statistics:
        own = with_names(reduce, known)
        assert isinstance(own, Reduce)
        if own.where is None or own.kind is Kind.BOOL or never_empty:
            known[stem] = name(stem, own)
            continue
        some = Reduce("any", own.where, own.over)
        if some not in seen:
            seen[some] = name("seen", some)
        known[stem] = name(stem, call("where", seen[some], own, 1.0))
    del known["score"]
    weight, denominator = with_names(named.weight, known), with_names(named.denominator, known)
    return [Map(tuple(equations)), replace(named, weight=weight, denominator=denominator)]


def _sees_itself(mixer: Mixer, stage: Attention) -> bool:
    """Whether each row sees the key at its own position, and each key is seen by that row."""
    row, facts = query_axis(mixer, stage), facts_of(mixer)
    if row is None or not facts.one_length(row, stage.over):
        return False
    own, back = Index(row), call("neg", Index(row))
    return any(
        one.exact
        and not (one.conditions or one.residual)
        and all(is_at_most_zero(plus(bound.tight, back)) for bound in one.lower)
        and all(is_at_most_zero(plus(own, 1, call("neg", bound.tight))) for bound in one.upper)
        for one in key_ranges(stage.mask, stage.over, row, facts).disjuncts
    )


__all__ = ["statistics_apart"]
