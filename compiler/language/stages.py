"""The forms of a spec, one after another."""

from __future__ import annotations

from ...ir.expression import Kind, Ref
from ...ir.mixer import Attention, Equation, Map, Mixer, Stage
from .attention import read_attention
from .declare import Lets, check_annotation, check_name, resolve
from .grammar import parse_target
from .positions import Text
from .schema import SpecDocument, StageSpec, Word
from .scope import Clash, Scope

_FORMS = ("attention", "map")


def read_stages(spec: SpecDocument, scope: Scope, lets: Lets) -> tuple[Stage, ...]:
    """The stages in order; their results become names in ``scope``."""
    given = [form for form in (*_FORMS, "stages") if getattr(spec, form) is not None]
    if len(given) != 1:
        raise _form_count(spec, given)
    if spec.stages is None:
        stage = StageSpec.model_construct(attention=spec.attention, map=spec.map, let={})
        return (_Stages(scope, lets).read(stage, None),)
    stages = _Stages(scope, lets)
    return tuple(stages.read(stage, _name(stage, scope)) for stage in spec.stages)


def _form_count(spec: SpecDocument, given: list[str]) -> Exception:
    if not given:
        return spec.block.source.error(
            spec.block.span,
            "the spec has no form",
            allowed="one of attention, map, stages",
            do="add `attention:` with what it computes",
        )
    return spec.key(given[1]).error(
        f"`{given[1]}` beside `{given[0]}`", do="list several forms under `stages:`"
    )


def _name(stage: StageSpec, scope: Scope) -> str | None:
    return None if stage.name is None else check_name(stage.name, stage.name.value, scope.context)


class _Stages:
    def __init__(self, scope: Scope, lets: Lets) -> None:
        self.scope, self.lets = scope, lets
        self.makers: dict[str, str] = {}
        self.count = 0

    def read(self, spec: StageSpec, name: str | None) -> Stage:
        self.count += 1
        label = f"stage {name or self.count}"
        local = self.scope.child()
        self.lets.declare(spec.let, local)
        if spec.attention is not None:
            self.lets.declare(spec.attention.let, local)
            attention = read_attention(spec.attention, local, name)
            self.lets.finish(local)
            for result in attention.results:
                self.make(result, label, spec.attention.key("output"))
            return attention
        assert spec.map is not None
        return self.map(spec.map, local, name, label)

    def map(self, lines: dict[Word, Text], local: Scope, name: str | None, label: str) -> Map:
        equations = []
        for key, text in lines.items():
            target, axes, _ = parse_target(key.text)
            made = check_name(key.text, target.name, local.context, target.span)
            value = resolve(made, text, local)
            check_annotation(f"`{made}`", value, axes, local.context)
            flat = " ".join(text.value.split())
            equation = Equation(made, value, flat, target.span)
            equations.append(equation)
            self.make(equation.ref, label, key.text)
        return Map(tuple(equations), name)

    def make(self, result: Ref, label: str, place: Text) -> None:
        if self.scope.outermost.find(result.name) is not None:
            raise place.error(
                f"`{result.name}` is declared already, as an input, param or let",
                do="give the result another name",
            )
        if result.name in self.makers:
            self.scope.names[result.name] = Clash((self.makers[result.name], label))
            return
        self.makers[result.name] = label
        self.scope.names[result.name] = result


__all__ = ["read_stages"]
