"""The stages of a spec as written, before anything in them is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ....ir.errors import SpecError
from ..names.names import NAME, check_name
from ..names.scope import Scope
from ..schema import SpecDocument, StageSpec
from ..text.grammar import parse_target
from ..text.positions import Text, clip
from ..text.source import closest, listed
from .renaming import Renaming
from .select import names_made
from .step import assigned

_FORMS = ("attention", "recurrence", "select", "convolution", "map")


def draft_stages(spec: SpecDocument, top: Scope) -> tuple[Draft, ...]:
    """The stages as written; the context learns which names they will make.

    Raises:
        SpecError: no form, or several at the top level or in one stage.
    """
    drafts = tuple(_drafts(spec, top))
    for draft in drafts:
        top.context.coming |= dict.fromkeys(draft.made(), draft.label)
    top.context.taken |= {*top.names, *top.context.coming}
    return drafts


@dataclass(frozen=True)
class Draft:
    """A stage as written, and how its names are changed (``like``)."""

    form: StageSpec
    name: str | None
    label: str
    renaming: Renaming
    direction: Text | None = None

    def made(self) -> Iterator[str]:
        """Every name that the stage makes."""
        if self.form.map is not None:
            yield from (self.renaming.made(parse_target(key.text)[0].name) for key in self.form.map)
        if (attention := self.form.attention) is not None:
            yield from (self.renaming.made(text.value) for text in attention.made())
        if (recurrence := self.form.recurrence) is not None:
            own = (target.name for target in assigned(recurrence.step))
            for name in dict.fromkeys((*map(str, recurrence.state), *own)):
                yield self.renaming.made(name)
        if self.form.select is not None:
            yield from (self.renaming.made(name) for name in names_made(self.form.select))
        if self.form.convolution is not None:
            yield self.renaming.made(self.form.convolution.output.value)


def _drafts(spec: SpecDocument, scope: Scope) -> list[Draft]:
    given = [form for form in (*_FORMS, "stages") if getattr(spec, form) is not None]
    if len(given) != 1:
        raise _form_count(spec, given)
    if spec.stages is None:
        form = StageSpec.model_construct(**{name: getattr(spec, name) for name in _FORMS})
        return [Draft(form, None, "the spec's form", Renaming())]
    if not spec.stages:
        raise spec.key("stages").error("`stages` is empty", do="list at least one form")
    names = _names(spec.stages, scope)
    return [
        _draft(stage, number, names, scope) for number, stage in enumerate(spec.stages, start=1)
    ]


def _form_count(spec: SpecDocument, given: list[str]) -> SpecError:
    if not given:
        return spec.block.source.error(
            spec.block.span,
            "the spec has no form",
            allowed=f"one of {', '.join(_FORMS)}, stages",
            do="add `attention:` with what it computes",
        )
    return spec.key(given[1]).error(
        f"`{given[1]}` beside `{given[0]}`", do="list several forms under `stages:`"
    )


def _names(stages: tuple[StageSpec, ...], scope: Scope) -> dict[str, StageSpec]:
    found: dict[str, StageSpec] = {}
    for stage in stages:
        if stage.name is not None:
            name = check_name(stage.name, stage.name.value, scope.context)
            if name in found:
                raise stage.name.error(f"two stages are called `{name}`")
            found[name] = stage
    return found


def _draft(stage: StageSpec, number: int, names: dict[str, StageSpec], scope: Scope) -> Draft:
    name = None if stage.name is None else stage.name.value
    label = f"stage `{name}`" if name else f"stage {number}"
    given = [form for form in (*_FORMS, "like") if getattr(stage, form) is not None]
    if len(given) != 1:
        raise stage.block.source.error(
            stage.block.span,
            f"a stage with {' and '.join(given) or 'no form'}",
            allowed=f"exactly one of {', '.join(_FORMS)}, like",
        )
    if stage.like is None:
        for key in ("suffix", "with_"):
            if key in stage.model_fields_set:
                raise stage.key(key.rstrip("_")).error(f"`{key.rstrip('_')}` without `like`")
        draft = Draft(stage, name, label, Renaming())
    else:
        draft = Draft(_liked(stage.like, names), name, label, _renaming(stage), stage.direction)
    if stage.direction is not None and (stage.like is None or draft.form.recurrence is None):
        raise stage.key("direction").error(
            "only a recurrence has a direction",
            do="write it inside `recurrence:`, or beside `like:` of a recurrence",
        )
    return draft


def _liked(like: Text, names: dict[str, StageSpec]) -> StageSpec:
    found = names.get(like.value)
    if found is None:
        raise like.error(
            f"no stage is called `{clip(like.value)}`",
            allowed=listed(names) or "no stage has a `name:`",
            do=closest(like.value, names),
        )
    if found.like is not None:
        raise like.error(f"the stage `{like.value}` is itself like another", do="name that one")
    return found


def _renaming(stage: StageSpec) -> Renaming:
    suffix = "" if stage.suffix is None else stage.suffix.value
    if stage.suffix is not None and not NAME.fullmatch("x" + suffix):
        raise stage.suffix.error("a suffix is made of letters, digits and _")
    return Renaming(suffix, dict(stage.with_))


__all__ = ["Draft", "draft_stages"]
