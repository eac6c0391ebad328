"""An attention in parts: several key axes under one normaliser.

    parts: [{over: M, score: a, output: {o: u}}, {over: J, score: b, output: {o: v}}]
    -->  o_1, lse_1 = attention over M;  o_2, lse_2 = attention over J
         o = (exp(lse_1 - m) o_1 + exp(lse_2 - m) o_2) / (exp(lse_1 - m) + exp(lse_2 - m))

Softmax's running rescaling is a homomorphism, so each part is an attention of its own, in a kernel
of its own with the key ranges that its mask gives, and the parts are put together row by row. With
another normaliser the parts make sums that nothing divides, and the row divides by the denominator
of what they add up to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import inf

from ....ir.expression import Expr, Kind, Literal, Ref
from ....ir.mixer import Attention, Equation, Map
from ....ir.rewriting import with_names
from ..names.definitions import resolve
from ..names.scope import Scope
from ..schema import AttentionSpec, NormalizeSpec, PartsSpec
from ..text.positions import Text
from .attention import read_attention
from .drafts import Draft
from .renaming import Renaming


def read_part(
    part: AttentionSpec, shared: PartsSpec, scope: Scope, renaming: Renaming
) -> Attention:
    """One part, as if it stood alone.

    Raises:
        SpecError: a normaliser of its own, or what is wrong in any attention.
    """
    for key in ("normalize", "lse"):
        if key in part.model_fields_set:
            raise part.key(key).error(
                f"`{key}` in a part: the parts share one normaliser",
                do=f"write `{key}:` beside `parts:`",
            )
    for key in ("carry", "feedback"):
        if key in part.model_fields_set:
            raise part.key(key).error(
                f"`{key}` in a part", do="write an attention of its own, without `parts`"
            )
    whole = AttentionSpec.model_copy(part, update={"normalize": shared.normalize})
    return read_attention(whole, scope, None, renaming)


def merge_parts(
    shared: PartsSpec, parts: Sequence[Attention], scope: Scope, draft: Draft
) -> tuple[tuple[Attention, ...], Map]:
    """The parts under names of their own, and the map that makes of them what the spec names.

    Raises:
        SpecError: no part, an lse where there is no softmax, a name made twice by one part, or a
            denominator that reads the scores of one part.
    """
    if not parts:
        raise shared.key("parts").error("`parts` is empty", do="list at least one attention")
    return _Merge(shared, tuple(parts), scope, draft).run()


@dataclass
class _Merge:
    shared: PartsSpec
    parts: tuple[Attention, ...]
    scope: Scope
    draft: Draft
    lines: list[Equation] = field(default_factory=list)
    made: list[dict[str, Ref]] = field(default_factory=list)  # for each part: its results
    masses: list[Ref] = field(default_factory=list)  # for each part: what its weights come to

    def run(self) -> tuple[tuple[Attention, ...], Map]:
        if self.shared.lse is not None and not self.softmax:
            raise self.shared.lse.error("an lse without a softmax: the parts have no such sum")
        stages = [stage for part in self.parts for stage in self._apart(part)]
        if self.softmax:
            self._shares()
        elif self.denominator is not None:
            self._divided(self.denominator)
        else:
            self._results(lambda number, ref: ref)
        return tuple(stages), Map(tuple(self.lines), self.draft.name)

    @property
    def softmax(self) -> bool:
        match self.shared.normalize:
            case NormalizeSpec(softmax=softmax):
                return softmax is not None
            case form:
                return form is None or form.value == "softmax"

    @property
    def denominator(self) -> Text | None:
        form = self.shared.normalize
        return form.denominator if isinstance(form, NormalizeSpec) else None

    def _apart(self, part: Attention) -> list[Attention]:
        """The part with names of its own, and what else the row needs of it: the sum of its
        weights, which a gain does not change."""
        own = self.scope.context.unused
        results = {ref.name: ref for ref in part.results}
        if len(results) < len(part.results):
            raise self.shared.key("parts").error("a part makes one name twice")
        names = {name: own(f"{name}_{len(self.made) + 1}") for name in results}
        outputs = tuple(replace(o, name=names[o.name]) for o in part.outputs)
        weights = None if part.weights is None else names[part.weights]
        bare = replace(part, outputs=outputs, weights=weights, sink=None)
        total = Ref("total", bare.queries, Kind.REAL)  # without axes that the sink alone has
        bare = replace(bare, denominator=with_names(bare.denominator, {"total": total}))
        if self.softmax:
            stages = [replace(bare, lse=own("lse"))]
        else:
            stages = self._with_mass(replace(bare, denominator=Literal(1)))
        made = {ref.name: ref for stage in stages for ref in stage.results}
        self.made.append({old: made.pop(new) for old, new in names.items()})
        self.masses += made.values()
        return stages

    def _with_mass(self, part: Attention) -> list[Attention]:
        """The part and the sum of its weights, where a denominator asks for it."""
        if self.denominator is None:
            return [part]
        total = Equation(self.scope.context.unused("mass"), Literal(1.0))
        if part.gain is None:
            return [replace(part, outputs=(*part.outputs, total))]
        return [part, replace(part, outputs=(total,), weights=None, gain=None)]

    def _shares(self) -> None:
        """Shares of the parts, from their log-sums; a row where nothing is visible has none."""
        f = self.scope.context.dims.call
        sinks = [whole.sink for whole in self.parts if whole.sink is not None]
        logits: list[Expr] = [*self.masses, *sinks[:1]]
        top = f("detach", self._folded("max", logits))
        top = self._line("largest", f("where", f("gt", top, Literal(-inf)), top, Literal(0.0)))
        masses = [self._line("mass", f("exp", f("sub", logit, top))) for logit in logits]
        total = self._line("mass", self._folded("add", masses))
        some = f("ne", total, Literal(0.0))  # a NaN is something
        safe = f("where", some, total, Literal(1.0))
        shares = [f("div", mass, safe) for mass in masses[: len(self.parts)]]
        self._results(lambda number, ref: f("mul", shares[number], ref))
        if self.shared.lse is not None:
            value = f("where", some, f("add", top, f("log", safe)), Literal(-inf))
            self._output(self.draft.renaming.made(self.shared.lse.value), value)

    def _divided(self, denominator: Text) -> None:
        """Sums of the parts over the denominator of their total; over 0 they are 0."""
        f = self.scope.context.dims.call
        inner = self.scope.child()
        inner.names["total"] = self._line("total", self._folded("add", self.masses))
        divisor = resolve("the denominator", denominator, inner)
        some = f("ne", divisor, Literal(0.0))
        safe = f("where", some, divisor, Literal(1.0))
        self._results(lambda _, ref: f("where", some, f("div", ref, safe), Literal(0.0)))

    def _results(self, scaled: Callable[[int, Ref], Expr]) -> None:
        """A line for each result; those of one name add up."""
        found: dict[str, list[Expr]] = {}
        for number, made in enumerate(self.made):
            for name, ref in made.items():
                found.setdefault(name, []).append(scaled(number, ref))
        for name, terms in found.items():
            value = self._folded("add", terms)
            self._output(name, self.scope.context.dims.unfolded(value))

    def _folded(self, fn: str, terms: Sequence[Expr]) -> Expr:
        call = self.scope.context.dims.call
        first, *others = terms
        return reduce(lambda found, term: call(fn, found, term), others, first)

    def _line(self, name: str, value: Expr) -> Ref:
        equation = Equation(self.scope.context.unused(name), value)
        self.lines.append(equation)
        return equation.ref

    def _output(self, name: str, value: Expr) -> None:
        self.lines.append(Equation(name, value))


__all__ = ["merge_parts", "read_part"]
