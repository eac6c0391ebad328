"""Values computed from earlier outputs: ``feedback: {u: v - beta * y}`` beside ``output: {y: u}``.

Each position's value reads the attention's result there, which sums earlier positions' values. With
the weights p of the pairs as a matrix, what is affine in y is a triangular system along the
sequence:

    u = a + b * y,  y = sum(p * u, J)   -->   p = weights of an attention
                                              u = solve((i == j) - b * p, a, I=J)
                                              y = attention with the value u
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ....ir.expression import Expr, Index, Kind, Ref, Solve, call
from ....ir.mixer import Attention, Equation, Map
from ....ir.names import names_in
from ....ir.rewriting import conjuncts, with_names
from ....ir.stages import changed
from ...analysis.recurrence.polynomial import Polynomial, polynomial, written
from ..names.definitions import resolve
from ..names.scope import Scope
from ..schema import AttentionSpec, Word
from ..text.positions import Text
from ..text.source import listed
from .attention import read_attention
from .carry import query_of
from .over import listed_axes, replaced
from .renaming import Renaming


@dataclass
class Feedback:
    """The attention as read, with what stands for the value and for the result that it reads."""

    word: Word  # the value's name
    text: Text
    result: Word  # the output that it reads
    stage: Attention
    value: Ref
    output: Ref
    update: Expr
    query: str
    scope: Scope

    def stages(self, name: str) -> tuple[Attention, Map, Attention]:
        """The stages that come to it; ``name`` is what the value is called from here on."""
        context, stage, over = self.scope.context, self.stage, self.stage.over
        share = context.unused("share")
        context.results |= {share, name}
        pairs = replace(stage, outputs=(), lse=None, weights=share)
        free, factor = self._affine()
        weight: Expr = pairs.results[-1]
        if stage.gain is not None:
            weight = call("mul", weight, stage.gain)
        one = call("where", call("eq", Index(self.query), Index(over)), 1.0, 0.0)
        matrix = call("sub", one, call("mul", factor, weight))
        value = Equation(name, Solve(matrix, free, self.query, over), "", self.text.span)
        found = with_value(stage, {self.value.name: value.ref})
        return pairs, Map((value,)), found

    def _affine(self) -> tuple[Expr, Expr]:
        """(what the result has no part in, its factor), both at the query's position."""
        form = polynomial(self.update)
        own = [m for m in form.monomials if self.output in m.factors]
        rest = written(Polynomial(tuple(m for m in form.monomials if m not in own)))
        parts = []
        for monomial in own:
            factors = list(monomial.factors)
            factors.remove(self.output)
            parts.append(replace(monomial, factors=tuple(factors)))
        factor = written(Polynomial(tuple(parts)))
        if not own or self.output.name in names_in(rest, factor):
            raise self.text.error(
                f"`{self.word}` is no number plus a factor times `{self.result}`",
                allowed=f"`a + b * {self.result}` with any a and b that don't read it",
                do="write a step of a recurrence for anything else",
            )
        return rest, factor


def with_value(stage: Attention, values: dict[str, Ref]) -> Attention:
    """The attention with the value in the place of what stands for it."""
    return changed(stage, lambda expr: with_names(expr, values))


def read_feedback(
    spec: AttentionSpec, scope: Scope, name: str | None, renaming: Renaming
) -> Feedback:
    """An attention whose value reads its result.

    Raises:
        SpecError: several values, one that no output sums, a mask that shows a row itself, or what
            is no system of linear equations.
    """
    if len(spec.feedback) > 1:
        raise spec.key("feedback").error("`feedback` of several values", do="feed back one value")
    ((word, text),) = spec.feedback.items()
    result = next((k for k, v in spec.output.items() if v.value.strip() == str(word)), None)
    if result is None:
        raise word.text.error(
            f"no output of the attention sums `{word}`", do=f"add `output: {{y: {word}}}`"
        )
    over = _key_axis(spec, scope)
    inner, feeding = scope.child(), scope.child()
    axes = frozenset({over})
    while True:
        value = Ref(_named(scope, f"{word}_fed", inner, str(word)), axes, Kind.REAL)
        inner.names[str(word)] = value
        stage = read_attention(spec, inner, name, renaming)
        query = query_of(stage, scope.context.dims, word.text)
        output = Ref(
            _named(scope, f"{result}_fed", feeding, str(result)), _result(stage, axes), Kind.REAL
        )
        feeding.names[str(result)] = output
        update = resolve(f"the value {word}", text, feeding)
        update = _at_query(update, over, query, scope)
        grown = axes | (update.axes - {query})
        if grown == axes:
            break
        axes = grown
    _check(stage, query, word, text, update)
    return Feedback(word, text, result, stage, value, output, update, query, scope)


def _key_axis(spec: AttentionSpec, scope: Scope) -> str:
    axes = listed_axes(spec.over, spec.key("over"), scope)
    if len(axes) > 1:
        raise spec.key("feedback").error(
            "`feedback` with several key axes", do="use one, the positions of the sequence"
        )
    return axes[0]


def _named(scope: Scope, wish: str, inner: Scope, word: str) -> str:
    known = inner.names.get(word)
    if isinstance(known, Ref):
        return known.name
    name = scope.context.unused(wish)
    scope.context.results.add(name)
    return name


def _result(stage: Attention, axes: frozenset[str]) -> frozenset[str]:
    return stage.queries | (axes - {stage.over})


def _at_query(update: Expr, over: str, query: str, scope: Scope) -> Expr:
    """What a position feeds back: each value there, whichever of the sequence's axes it has."""
    steps = scope.context.dims.sequence(over)
    places: dict[str, Expr] = {dim: Index(query) for dim in (over, steps) if dim != query}
    return replaced(update, places)


def _check(stage: Attention, query: str, word: Word, text: Text, update: Expr) -> None:
    i, j = Index(query), Index(stage.over)
    before = [call("lt", j, i), call("gt", i, j)]
    if stage.mask is None or not any(part in before for part in conjuncts(stage.mask)):
        raise word.text.error(
            f"`{word}` reads the result of its own position, and the mask shows it to itself",
            do=f"add `{stage.over.lower()} < {query.lower()}` to the mask",
        )
    if stage.over in update.axes:
        raise text.error(f"`{word}` runs along {listed([stage.over])} inside")


__all__ = ["Feedback", "read_feedback"]
