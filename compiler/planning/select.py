"""A selection as kernels."""

from __future__ import annotations

from ...ir.errors import UnsupportedError
from ...ir.expression import Expr, Index, call
from ...ir.mixer import Select
from .plan_builder import PlanBuilder


def plan_select(builder: PlanBuilder, stage: Select) -> None:
    """The kernels of a selection: where the kept ones of a row end, then the choice by itself.

    Raises:
        UnsupportedError: a rule, a list or several axes, which no schedule computes.
    """
    _refuse(builder, stage)
    (over,) = stage.over
    among = None if stage.among is None else builder.inlined(stage.among)
    chosen = _kept(builder, stage, over, among)
    if among is not None:
        chosen = call("and", among, chosen)
    if stage.always is not None:
        chosen = call("or", builder.inlined(stage.always), chosen)
    made = builder.result(stage.output, chosen, "the choice")
    builder.names[stage.output] = made


def _kept(builder: PlanBuilder, stage: Select, over: str, among: Expr | None) -> Expr:
    """Whether a candidate is one of those that are kept."""
    score, bound = builder.inlined(stage.score), builder.inlined(stage.bound)
    if stage.rule == "above":
        return call("gt", score, bound)
    x, least, last = builder.ends(score, over, bound, among)
    tie = call("and", call("eq", x, least), call("le", Index(over), last))
    return call("or", call("gt", x, least), tie)


def _refuse(builder: PlanBuilder, stage: Select) -> None:
    for reason in (
        "the list of a selection" if stage.listed is not None else None,
        "a selection over several axes" if len(stage.over) > 1 else None,
        "a selection by `mass`" if stage.rule == "mass" else None,
    ):
        if reason is not None:
            raise UnsupportedError(
                f"{builder.mixer.name}: {reason} has no kernel yet: {stage.output}"
            )
