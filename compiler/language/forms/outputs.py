"""The declared outputs: the check on everything above them."""

from __future__ import annotations

from ....ir.expression import Expr, Ref
from ....ir.mixer import Attention, Output, Recurrence, Stage
from ..names.layouts import check_axes, read_layout
from ..names.scope import Barred, Clash, Pending, Scope
from ..schema import SpecDocument, Word
from ..terms.complexes import Complex
from ..text.source import closest, listed


def read_outputs(spec: SpecDocument, scope: Scope, stages: tuple[Stage, ...]) -> tuple[Output, ...]:
    """The outputs, each with the axes that its value has.

    Raises:
        SpecError: a name that nothing makes, or other axes than declared.
    """
    made = _made(scope)
    found = []
    for key, items in spec.outputs.items():
        value = _value(key, made, scope)
        layout = read_layout(items)
        declared = [dim for product in layout for dim in product]
        _check_rows(key, value, declared, stages)
        origin = _origin(str(key), stages, value.axes - set(declared))
        source, span = scope.context.source, key.text.span
        check_axes(f"`{key}`", value, declared, source, span, origin, scope.context.dims.heads)
        found.append(Output(str(key), layout, value.kind, span))
    if not found:
        raise spec.key("outputs").error("the spec has no outputs", do="name at least one result")
    return tuple(found)


def _check_rows(key: Word, value: Expr, declared: list[str], stages: tuple[Stage, ...]) -> None:
    """A step's name has rows and a state has none, whatever is declared for them."""
    for stage in stages:
        if not isinstance(stage, Recurrence) or not isinstance(value, Ref):
            continue
        axes, over = ", ".join(sorted(value.axes)), stage.over
        if value in stage.own and over not in declared:
            do = f"declare it with {over}; its last row is `last({key})` in a later stage"
            raise key.text.error(f"`{key}` has the axes [{axes}], a row for each {over}", do=do)
        if over in declared and value in [state.ref for state in stage.states]:
            found = f"`{key}` is a state, [{axes}]: its output is its value after the last row"
            do = f"leave {over} out, or name its rows by a line in the step: `rows = {key}`"
            raise key.text.error(found, do=do)


def _value(key: Word, made: dict[str, Expr], scope: Scope) -> Expr:
    if isinstance(clash := scope.find(key), Clash):
        raise key.text.error(
            f"`{key}` is made by {' and by '.join(clash.stages)}",
            do="give the results different names",
        )
    if key not in made:
        raise key.text.error(
            f"nothing makes the output `{key}`",
            allowed=listed(made) or "the results of the stages, and top-level lets",
            do=closest(key, made),
        )
    if isinstance(made[key], Complex):
        raise key.text.error(
            f"the output `{key}` is complex",
            allowed="real numbers",
            do=f"name its parts, `{key}_re` and `{key}_im`",
        )
    return made[key]


def _made(scope: Scope) -> dict[str, Expr]:
    """Everything that an output may name: results of stages, top-level lets."""
    found = {name: value for name, value in scope.names.items() if isinstance(value, Expr)}
    for name, binding in scope.names.items():
        if isinstance(binding, Barred) and binding.value is not None:
            found[name] = binding.value
    for name, binding in scope.outermost.names.items():
        if isinstance(binding, Pending) and isinstance(value := binding.resolve(), Ref):
            found.setdefault(name, value)
    return found


def _origin(name: str, stages: tuple[Stage, ...], extra: frozenset[str]) -> str:
    """Which clause of the stage that makes ``name`` has the axes that are too many."""
    for stage in stages:
        if isinstance(stage, Attention) and any(r.name == name for r in stage.results):
            clauses: dict[str, Expr | None] = {
                "score": stage.score,
                "mask": stage.mask,
                "gain": stage.gain,
                "sink": stage.sink,
                **{f"output {o.name}": o.value for o in stage.outputs if o.name == name},
            }
            guilty = [c for c, e in clauses.items() if e is not None and extra & e.axes]
            return f" in the {' and the '.join(guilty)}" if guilty else ""
    return ""


__all__ = ["read_outputs"]
