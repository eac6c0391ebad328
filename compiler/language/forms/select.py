"""The select form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from ....ir.expression import Expr, Kind
from ....ir.mixer import Rule, Select
from ..names.definitions import check_annotation, flat, resolve
from ..names.layouts import known_dim
from ..names.names import check_name
from ..names.scope import Scope
from ..schema import SelectSpec
from ..terms.infer import truth
from ..text.grammar import parse_target
from ..text.positions import Text
from ..text.source import listed
from .over import listed_axes
from .renaming import Renaming

_DEFAULT_OUTPUT = "selected"
_CONDITIONS = {"among": "the condition `among`", "always": "the condition `always`"}


def names_made(spec: SelectSpec) -> Iterator[str]:
    """The names of the choice and of its list, as written."""
    yield _DEFAULT_OUTPUT if spec.output is None else spec.output.value
    if spec.list is not None:
        yield spec.list.name.value


def places_made(spec: SelectSpec) -> Iterator[Text]:
    """Where the same names stand."""
    yield spec.output or spec.key("over")
    if spec.list is not None:
        yield spec.list.name


def read_select(spec: SelectSpec, scope: Scope, name: str | None, renaming: Renaming) -> Select:
    """A select stage.

    Raises:
        SpecError: clauses whose kinds or axes do not fit, or not exactly one rule.
    """
    over = listed_axes(spec.over, spec.key("over"), scope)
    rule, bound = _rule(spec)
    texts = {"score": spec.score, "among": spec.among, "always": spec.always, rule: bound}
    clauses = _clauses(spec, {key: text for key, text in texts.items() if text is not None}, scope)
    _check(over, rule, clauses, texts)
    names = [
        check_name(place, renaming.made(made), scope.context)
        for made, place in zip(names_made(spec), places_made(spec), strict=True)
    ]
    made = Select(
        over=over,
        score=clauses["score"],
        rule=rule,
        bound=clauses[rule],
        among=clauses.get("among"),
        always=clauses.get("always"),
        output=names[0],
        name=name,
        texts=tuple((key, flat(text)) for key, text in texts.items() if text is not None),
        **_list(spec, scope, names),
    )
    if made.slots in made.queries | {*over}:
        assert spec.list is not None
        raise spec.list.axis.error(
            f"the list is along {made.slots}, an axis that the selection has already",
            do="name another axis, and give its size under `dims`: `{S: keep}`",
        )
    return made


def _rule(spec: SelectSpec) -> tuple[Rule, Text]:
    """The one rule that says how many are kept."""
    given: list[tuple[Rule, Text]] = [
        (rule, text) for rule in get_args(Rule) if (text := getattr(spec.keep, rule)) is not None
    ]
    if len(given) != 1:
        rules = " and ".join(rule for rule, _ in given) or "no rule"
        raise spec.key("keep").error(
            f"`keep` has {rules}", allowed="exactly one of top, above, mass", do="write `top: n`"
        )
    return given[0]


def _clauses(spec: SelectSpec, texts: dict[str, Text], scope: Scope) -> dict[str, Expr]:
    """The clauses by name; head groups lifted."""
    found = {}
    for name, text in texts.items():
        value = resolve(f"the {name}", text, scope)
        if name in SelectSpec.annotated:
            _, annotated, _ = parse_target(spec.key(name))
            check_annotation(f"the {name}", value, annotated, scope.context)
        if name in _CONDITIONS:
            truth(value, _CONDITIONS[name], text)
        found[name] = value
    axes = frozenset[str]().union(*(value.axes for value in found.values()))
    return {name: scope.context.dims.lift(value, axes) for name, value in found.items()}


def _check(
    over: tuple[str, ...], rule: Rule, clauses: dict[str, Expr], texts: dict[str, Text | None]
) -> None:
    score, bound = clauses["score"], clauses[rule]
    if missing := [dim for dim in over if dim not in score.axes]:
        assert texts["score"] is not None
        raise texts["score"].error(
            f"the score lacks the axis {missing[0]}, which positions are chosen from",
            allowed=f"its axes: {listed(sorted(score.axes)) or 'none'}",
        )
    text = texts[rule]
    assert text is not None
    if along := [dim for dim in over if dim in bound.axes]:
        raise text.error(
            f"`{rule}` has the axis {along[0]}, which positions are chosen from",
            allowed="one number for each row",
        )
    if rule == "top" and bound.kind is Kind.REAL:
        raise text.error(
            "`top` is a real number",
            allowed="an integer: how many are kept",
            do="round it with `floor(…)` or `ceil(…)`",
        )


def _list(spec: SelectSpec, scope: Scope, names: list[str]) -> dict[str, str]:
    """The list's name and its axis, where one is asked for."""
    if spec.list is None:
        return {}
    if names[0] == names[1]:
        raise spec.list.name.error(f"`{names[1]}` is made twice by this stage")
    dims = scope.context.dims
    sized = f"give the places of the list a size: `dims: {{{spec.list.axis.value}: …}}`"
    dim = known_dim(spec.list.axis, dims.known, sized)
    return {"listed": names[1], "slots": dims.use(dim, spec.list.axis.span)}


__all__ = ["names_made", "places_made", "read_select"]
