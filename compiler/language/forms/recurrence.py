"""The recurrence form."""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.expression import Expr
from ....ir.mixer import Equation, Recurrence
from ..names.definitions import flat, resolve
from ..names.layouts import known_dim
from ..names.scope import Scope
from ..schema import RecurrenceSpec
from ..terms.infer import truth
from ..text.positions import Text, clip
from ..text.source import closest
from .rows import Rows
from .states import Named, Place, States
from .step import Step, assigned

_DIRECTIONS = ("forward", "backward")


@dataclass(frozen=True)
class Reading:
    """A recurrence as read: what it needs before it, and what its names stand for after it."""

    stage: Recurrence
    before: tuple[Equation, ...]  # over whole sequences, which the step reads row by row
    own: dict[str, Expr]
    states: dict[str, Expr]


def read_recurrence(
    spec: RecurrenceSpec,
    scope: Scope,
    name: str | None,
    named: Named,
    direction: Text | None = None,
) -> Reading:
    """A recurrence.

    ``named`` gives what a name of the step, or a part of it, is called in the mixer;
    ``direction`` replaces the spec's own.

    Raises:
        SpecError: lines whose names or axes do not fit.
    """
    context = scope.context
    over = context.dims.use(known_dim(spec.over, context.dims.known), spec.over.span)
    if not spec.step:
        raise spec.key("step").error("the step is empty", do="write a line `name = expression`")
    for key in spec.state:
        if key not in {target.name for target in assigned(spec.step)}:
            do = f"write a line `{key} = …`; what never changes belongs under `let:`"
            raise key.text.error(f"no line of the step assigns the state `{key}`", do=do)
    names: dict[tuple[str, str], str] = {}

    def mixed(word: str, part: str) -> str:
        if (word, part) not in names:
            names[word, part] = named(word, part)
        return names[word, part]

    states = States(spec, over, scope, mixed)
    rows = Rows(context, over, lambda: frozenset(names.values()))
    reset = _reset(spec, scope, states, rows)
    step = Step(spec.step, scope, states, rows, mixed)
    step.settle()
    lines = step.read()
    axes = frozenset[str]().union(*(d.axes for d in states.drafts.values()))
    stage = Recurrence(
        over=over,
        states=states.finish(),
        step=lines,
        reset=None if reset is None else context.dims.lift(reset, axes),
        reverse=_backward(direction or spec.direction),
        name=name,
        texts=_texts(spec),
    )
    after = {state: states.ref(state) for state in states.drafts}
    return Reading(stage, tuple(rows.equations.values()), step.results(), after)


def _reset(spec: RecurrenceSpec, scope: Scope, states: States, rows: Rows) -> Expr | None:
    if spec.reset is None:
        return None
    reset = truth(resolve("the reset", spec.reset, scope), "`reset`", spec.reset)
    for state in states.drafts:
        states.check_flow(state, reset, (), Place(scope.context.source, spec.reset.span))
    states.flow_everywhere(reset.axes - {states.over})
    return rows.checked(reset, (), hoist="reset")


def _backward(direction: Text | None) -> bool:
    if direction is None:
        return False
    if direction.value not in _DIRECTIONS:
        raise direction.error(
            f"unknown direction `{clip(direction.value)}`",
            allowed="forward, backward",
            do=closest(direction.value, _DIRECTIONS),
        )
    return direction.value == "backward"


def _texts(spec: RecurrenceSpec) -> tuple[tuple[str, str], ...]:
    found = [(f"initial {key}", flat(text)) for key, text in spec.initial.items()]
    if spec.reset is not None:
        found.append(("reset", flat(spec.reset)))
    return tuple(found)


__all__ = ["Reading", "read_recurrence"]
