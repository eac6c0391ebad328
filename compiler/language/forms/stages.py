"""The forms of a spec, one after another."""

from __future__ import annotations

from collections.abc import Iterator

from ....ir.expression import Expr, Ref
from ....ir.mixer import Attention, Equation, Map, Stage
from ....ir.names import names_in
from ....ir.rewriting import walk
from ....ir.stages import values
from ..names.definitions import Lets, check_annotation, flat, reads_results, resolve
from ..names.names import check_name
from ..names.scope import Argument, Barred, Binding, Clash, Scope
from ..schema import (
    AttentionSpec,
    ConvolutionSpec,
    PartsSpec,
    RecurrenceSpec,
    SelectSpec,
    Word,
)
from ..terms.complexes import PARTS, Complex, parts, together
from ..terms.infer import infer
from ..text.grammar import parse, parse_target
from ..text.positions import Text
from .attention import read_attention
from .carry import check_lets, read_carry
from .convolution import read_convolution
from .drafts import Draft
from .feedback import read_feedback
from .over import listed_axes, unfolded
from .parts import merge_parts, read_part
from .recurrence import read_recurrence
from .renaming import Renaming
from .select import places_made, read_select


def read_stages(drafts: tuple[Draft, ...], scope: Scope, lets: Lets) -> tuple[Stage, ...]:
    """The stages in order; their results become names in ``scope``.

    Raises:
        SpecError: as reading the forms does.
    """
    stages = _Stages(scope, lets)
    return tuple(stage for draft in drafts for stage in stages.read(draft))


def _state(name: str, value: Expr) -> Barred:
    """A recurrence's state as later stages see it."""
    return Barred(
        f"`{name}` is a state of a recurrence, which has no rows here",
        f"read `last({name})`, or write a line `o = {name}` in the step for its rows",
        value,
    )


def _with_parts(name: str, value: Expr) -> Iterator[tuple[str, Expr]]:
    """A name of a step with what it stands for; of a complex one its two parts too."""
    yield name, value
    if isinstance(value, Complex):
        yield from ((ref.name, ref) for ref in parts(value) if isinstance(ref, Ref))


class _Stages:
    """Reads stages in order, and keeps who made which name."""

    def __init__(self, scope: Scope, lets: Lets) -> None:
        self.scope, self.lets = scope, lets
        self.makers: dict[str, str] = {}

    def read(self, draft: Draft) -> tuple[Stage, ...]:
        """The stages of a form, after those whose rows it reads."""
        local = self.replaced(draft).child()
        self.lets.declare(draft.form.let, local)
        stages = self.form(draft, local)
        return (*self.pending(stages), *stages)

    def form(self, draft: Draft, local: Scope) -> tuple[Stage, ...]:
        if isinstance(draft.form.attention, PartsSpec):
            return self.parts(draft, draft.form.attention, local)
        if draft.form.attention is not None:
            spec = draft.form.attention
            read = (
                self.fed_back if spec.feedback else self.carried if spec.carry else self.attention
            )
            return read(draft, spec, local)
        if draft.form.recurrence is not None:
            return self.recurrence(draft, draft.form.recurrence, local)
        if draft.form.select is not None:
            return (self.select(draft, draft.form.select, local),)
        if draft.form.convolution is not None:
            return (self.convolution(draft, draft.form.convolution, local),)
        return self.map(draft, local)

    def pending(self, stages: tuple[Stage, ...] = ()) -> list[Stage]:
        """What has to come before the stages: running extremes, of nothing that they make."""
        context = self.scope.context
        found, context.pending = context.pending, []
        forms = (stage for stage in stages if not isinstance(stage, Map))
        own = {"score", "total"} | {ref.name for form in forms for ref in form.results}
        for expr in (value for stage in found for _, value in values(stage)):
            for node in walk(expr):
                if isinstance(node, Ref) and node.name in own:
                    raise context.error(
                        node.span,
                        f"a running extreme of `{node.name}`, which the same form makes",
                        do="in a step write it as a state: `m = max(m, x)`",
                    )
        return found

    def replaced(self, draft: Draft) -> Scope:
        """The scope of a stage, with the names that ``with`` replaces by values."""
        scope = self.scope.child()
        hidden = self.scope.outermost.names.keys()  # a step may make these, for itself
        made = {*Draft(draft.form, None, "", Renaming()).made()} - hidden
        for key, text in draft.renaming.values.items():
            if key in made:
                check_name(text, text.value, scope.context)
                continue
            if self.scope.find(key) is None and key not in scope.context.dims.known:
                raise key.text.error(f"`{key}` is no name that the stage could read")
            node = parse(text)
            scope.names[str(key)] = Argument(node, self.scope, infer(node, self.scope))
        return scope

    def fed_back(self, draft: Draft, spec: AttentionSpec, local: Scope) -> tuple[Stage, ...]:
        """An attention whose values are computed from its earlier results."""
        if spec.carry:
            raise spec.key("carry").error("`carry` beside `feedback`", do="use two attentions")
        self.lets.declare(spec.let, local)
        feedback = read_feedback(spec, local, draft.name, draft.renaming)
        self.lets.finish(local)
        word = feedback.word
        name = check_name(word.text, draft.renaming.made(str(word)), local.context)
        pairs, value, attention = feedback.stages(name)
        places = {draft.renaming.made(text.value): text for text in spec.made()}
        for result in (*(e.ref for e in value.equations), *attention.results):
            self.make(result, draft.label, places[result.name])
        return pairs, value, attention

    def carried(self, draft: Draft, spec: AttentionSpec, local: Scope) -> tuple[Stage, ...]:
        """An attention to keys that the steps before a query have changed."""
        axes = listed_axes(spec.over, spec.key("over"), local)
        if len(axes) > 1:
            raise spec.key("carry").error(
                "`carry` with several key axes",
                do="carry along one axis of keys, the positions of the queries' sequence",
            )
        carry = read_carry(spec, axes[0], local, self.lets)
        stage = read_attention(spec, carry.scope, draft.name, draft.renaming)
        self.lets.finish(carry.scope)
        check_lets(carry, stage, self.lets.equations)
        for result, place in zip(stage.results, spec.made(), strict=True):
            self.make(result, draft.label, place)
        return carry.applied(stage)

    def attention(
        self, draft: Draft, spec: AttentionSpec, local: Scope
    ) -> tuple[Attention] | tuple[Attention, Map]:
        """An attention, and a map where its weights have several key axes."""
        self.lets.declare(spec.let, local)
        stages = unfolded(read_attention(spec, local, draft.name, draft.renaming), local)
        self.lets.finish(local)
        made = [equation.ref for map_ in stages[1:] for equation in map_.equations]
        results = [*stages[0].results[: len(stages[0].results) - len(made)], *made]
        names = [result.name for result in results]
        for number, (result, place) in enumerate(zip(results, spec.made(), strict=True)):
            if result.name in names[:number]:
                raise place.error(f"`{result.name}` is made twice by this stage")
            self.make(result, draft.label, place)
        local.context.results |= {result.name for result in stages[0].results}
        return stages

    def parts(self, draft: Draft, spec: PartsSpec, local: Scope) -> tuple[Stage, ...]:
        """The parts of an attention and the map that puts them together."""
        self.lets.declare(spec.let, local)
        read = []
        for part in spec.parts:
            inner = local.child()
            self.lets.declare(part.let, inner)
            read.append(read_part(part, spec, inner, draft.renaming))
            self.lets.finish(inner)
        self.lets.finish(local)
        stages, merged = merge_parts(spec, read, local, draft)
        places = {draft.renaming.made(text.value): text for text in spec.made()}
        local.context.results |= {ref.name for stage in stages for ref in stage.results}
        for equation in merged.equations:
            if equation.name in places:
                self.make(equation.ref, draft.label, places[equation.name])
            else:
                local.context.results.add(equation.name)
        return (*stages, merged)

    def select(self, draft: Draft, spec: SelectSpec, local: Scope) -> Stage:
        self.lets.declare(spec.let, local)
        stage = read_select(spec, local, draft.name, draft.renaming)
        self.lets.finish(local)
        for result, place in zip(stage.results, places_made(spec), strict=True):
            self.make(result, draft.label, place)
        return stage

    def convolution(self, draft: Draft, spec: ConvolutionSpec, local: Scope) -> Stage:
        self.lets.declare(spec.let, local)
        equation = read_convolution(spec, local, draft.renaming)
        self.lets.finish(local)
        self.make(equation.ref, draft.label, spec.output)
        return Map((equation,), draft.name)

    def recurrence(self, draft: Draft, spec: RecurrenceSpec, local: Scope) -> tuple[Stage, ...]:
        """A recurrence, after a map with what its step needs of earlier stages as a whole."""
        self.lets.declare(spec.let, local)
        self.lets.finish(local)
        renaming = draft.renaming

        def named(word: str, part: str) -> str:
            name = check_name(spec.key("step"), renaming.made(word) + part, local.context)
            free = not part and name not in self.makers and name not in local.outermost.names
            return name if free else local.context.unused(name)

        reading = read_recurrence(spec, local, draft.name, named, draft.direction)
        before = []
        for equation in reading.before:
            if reads_results(equation.value, local.context):
                local.context.results.add(equation.name)
                before.append(equation)
            else:
                self.lets.equations.append(equation)
        for word, value in reading.states.items():
            for name, part in _with_parts(renaming.made(word), value):
                self.make_in_step(name, _state(name, part), draft.label)
        for word, value in reading.own.items():
            for name, part in _with_parts(renaming.made(word), value):
                self.make_in_step(name, part, draft.label)
        return (*([Map(tuple(before))] if before else []), reading.stage)

    def make_in_step(self, name: str, value: Binding, label: str) -> None:
        """A name of a step becomes visible, but where something outside the stages has it."""
        if name in self.scope.outermost.names:
            return
        made = value.value if isinstance(value, Barred) else value
        assert isinstance(made, Expr)
        self.scope.context.results |= names_in(made)
        if name in self.makers:
            self.scope.names[name] = Clash((self.makers[name], label))
        else:
            self.makers[name] = label
            self.scope.names[name] = value

    def map(self, draft: Draft, local: Scope) -> tuple[Stage, ...]:
        """A map, cut where a line reads a running extreme of what lines before it make."""
        assert draft.form.map is not None
        made: list[Stage] = []
        lines: list[Equation] = []
        for key, text in draft.form.map.items():
            read = self.line(key, text, draft, local)
            if (before := self.pending()) and lines:
                made.append(Map(tuple(lines), draft.name))
                lines = []
            made += before
            lines += read
        self.lets.finish(local)
        return (*made, Map(tuple(lines), draft.name))

    def line(self, key: Word, text: Text, draft: Draft, local: Scope) -> list[Equation]:
        target, axes, opening = parse_target(key.text)
        if opening == "(":
            raise key.text.error(
                f"`{target.name}` has parameters", do="write macros under `define:`"
            )
        name = draft.renaming.made(target.name)
        check_name(key.text, name, local.context, target.span)
        value = resolve(name, text, local, pair=True)
        check_annotation(f"`{target.name}`", value, axes, local.context)
        if target.name in local.names:
            raise key.text.error(f"`{target.name}` is declared twice", do="rename one of the two")
        if isinstance(value, Complex):
            return self.complex_line(name, target.name, value, key.text, draft, local)
        equation = Equation(name, value, flat(text), target.span)
        self.make(equation.ref, draft.label, key.text)
        local.names[target.name] = equation.ref
        return [equation]

    def complex_line(
        self, name: str, word: str, value: Complex, place: Text, draft: Draft, local: Scope
    ) -> list[Equation]:
        """An equation for each part; the name stands for both."""
        made = [local.context.unused(name + suffix) for suffix in PARTS]
        lines = [Equation(n, p, "", place.span) for n, p in zip(made, parts(value), strict=True)]
        for equation in lines:
            self.make(equation.ref, draft.label, place)
        whole = together(equation.ref for equation in lines)
        self.make_in_step(name, whole, draft.label)
        local.names[word] = whole
        return lines

    def make(self, result: Ref, label: str, place: Text) -> None:
        """A result becomes a name, or a clash where an earlier stage makes it too."""
        if result.name in self.scope.outermost.names:
            raise place.error(
                f"`{result.name}` is declared already, as an input, param or let",
                do="give the result another name",
            )
        self.scope.context.results.add(result.name)
        if result.name in self.makers:
            self.scope.names[result.name] = Clash((self.makers[result.name], label))
        else:
            self.makers[result.name] = label
            self.scope.names[result.name] = result


__all__ = ["read_stages"]
