"""What each step does to the keys before it: ``carry: {k: k - beta * w * sum(w * k, D)}``.

A query sees a key as the steps between them leave it: the key's own step does nothing to it, the
query's does. Where every step adds something that the key has no say in, the steps between come to
a difference of running sums, and the attention stays one:

    carry: {age: age + g}   -->   age + c[T=i] - c[T=j],   c = cumsum(g, T)

and where it multiplies by something positive, to the exponential of one. Any other is what it says,
a cache that each step rewrites (``cache.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ....ir.expression import Cumsum, Expr, Index, Kind, Literal, Read, Ref, call
from ....ir.mixer import Attention, Equation, Map, Stage
from ....ir.names import names_in
from ....ir.rewriting import conjuncts, walk, with_names
from ....ir.stages import changed
from ....ir.stages import values as stage_values
from ...analysis.recurrence.logarithm import logarithm
from ...analysis.recurrence.polynomial import Polynomial, polynomial, written
from ..names.definitions import Lets, resolve
from ..names.dims import Dims
from ..names.scope import Scope
from ..schema import AttentionSpec, Word
from ..terms.infer import infer
from ..text.grammar import parse
from ..text.positions import Text
from ..text.source import listed
from .cache import cached


@dataclass(frozen=True)
class Carried:
    """A name that steps change: its first value, what stands for it, what a step makes of it."""

    word: Word
    text: Text
    key: Expr
    ref: Ref
    update: Expr


@dataclass(frozen=True)
class Carry:
    """Every name that an attention carries; ``steps`` is the axis along which they happen."""

    names: tuple[Carried, ...]
    over: str
    steps: str
    scope: Scope  # of the clauses: there the names are what a query sees

    def applied(self, stage: Attention) -> tuple[Stage, ...]:
        """The attention to keys as the steps leave them, with what goes before it and after it.

        Raises:
            SpecError: no query of the keys' sequence, or a mask that shows keys to earlier ones.
        """
        query = query_of(stage, self.scope.context.dims, self.names[0].word.text)
        self._check_mask(stage, query)
        before: list[Equation] = []
        found = {one.ref.name: self._between(one, query, before) for one in self.names}
        values = {name: value for name, value in found.items() if value is not None}
        if len(values) < len(found):
            axes = query, self.over, self.steps
            return cached(self.names, axes, stage, self.scope.context)
        made = changed(stage, lambda expr: with_names(expr, values))
        return (Map(tuple(before)), made) if before else (made,)

    def _check_mask(self, stage: Attention, query: str) -> None:
        i, j = Index(query), Index(self.over)
        before = [call("le", j, i), call("ge", i, j), call("lt", j, i), call("gt", i, j)]
        if stage.mask is None or not any(part in before for part in conjuncts(stage.mask)):
            raise self.names[0].word.text.error(
                "the steps change the keys before them, and the mask shows keys after the query",
                do=f"add `{self.over.lower()} <= {query.lower()}` to the mask",
            )

    def _between(self, one: Carried, query: str, before: list[Equation]) -> Expr | None:
        """A name as a query sees it, where running sums say it; else None."""
        form = polynomial(one.update)
        own = [m for m in form.monomials if one.ref in m.factors]
        rest = written(Polynomial(tuple(m for m in form.monomials if m not in own)))
        if len(own) != 1:
            return None
        factors = list(own[0].factors)
        factors.remove(one.ref)
        by = written(Polynomial((replace(own[0], factors=tuple(factors)),)))
        names = {other.ref.name for other in self.names}
        if names & names_in(by, rest) or self.over in by.axes | rest.axes:
            return None
        if by in (Literal(1), Literal(1.0)):
            return call("add", one.key, self._steps(one, rest, query, before))
        log = logarithm(by)
        if log is None or rest not in (Literal(0), Literal(0.0)):
            return None
        return call("mul", one.key, call("exp", self._steps(one, log, query, before)))

    def _steps(self, one: Carried, each: Expr, query: str, before: list[Equation]) -> Expr:
        """The sum of what each step between key and query adds."""
        if self.steps not in each.axes:
            return call("mul", each, call("sub", Index(query), Index(self.over)))
        context = self.scope.context
        total = Equation(context.unused(f"{one.word}_steps"), Cumsum(each, self.steps))
        context.results.add(total.name)
        before.append(total)
        places = (Index(query), Index(self.over))
        return call("sub", *(_row(total.ref, self.steps, place) for place in places))


def _row(rows: Ref, axis: str, place: Index) -> Expr:
    return rows if place.dim == axis else Read(rows, ((axis, place),))


def query_of(stage: Attention, dims: Dims, place: Text) -> str:
    """The axis of the queries that runs over the sequence of the keys.

    Raises:
        SpecError: none, or several.
    """
    over = stage.over
    mine = [d for d in sorted(stage.queries) if dims.sequence(d) == dims.sequence(over)]
    if len(mine) != 1:
        sequence = dims.sequence(over)
        raise place.error(
            f"{listed(mine) or 'no axis'} of the attention is a query's position beside {over}",
            allowed="one, of the same sequence as the keys",
            do=f"say so under `dims`: `{{I: {sequence}, {over}: {sequence}}}`",
        )
    return mine[0]


def read_carry(spec: AttentionSpec, over: str, scope: Scope, lets: Lets) -> Carry:
    """What the steps do; the clauses of the attention are read in the scope that comes with it.

    Raises:
        SpecError: a name without the axis of the keys, steps of another axis, or a let that reads
            a key before the steps.
    """
    dims = scope.context.dims
    steps = dims.sequence(over)
    word = next(iter(spec.carry))
    if steps == over:
        raise word.text.error(
            f"{over} is a sequence of its own: there is no axis for the steps",
            do=f"say whose positions the keys are: `dims: {{I: T, {over}: T}}`",
        )
    inner = scope.child()
    keys = {key: _key(key, over, scope) for key in spec.carry}
    refs = {key: scope.context.unused(f"{key}_kept") for key in keys}
    scope.context.results |= {*refs.values()}
    flows = dict.fromkeys(keys, frozenset[str]())  # what each gets from what its steps read
    names: dict[Word, Carried] = {}
    while True:
        for key, value in keys.items():
            lifted = dims.lift(value, value.axes | flows[key])
            ref = Ref(refs[key], lifted.axes | flows[key], Kind.REAL)
            inner.names[str(key)] = ref
            names[key] = Carried(key, spec.carry[key], lifted, ref, ref)
        before = dict(flows)
        for key, text in spec.carry.items():
            update = resolve(f"what a step does to {key}", text, inner)
            names[key] = replace(names[key], update=update)
            flows[key] |= update.axes - {steps, over}
            flows[key] -= {d for d in flows[key] if {*dims.larger(d)} & flows[key]}
        if flows == before:
            break
    for one in names.values():
        _check_step(one, over, steps, scope)
    lets.declare(spec.let, inner)
    return Carry(tuple(names.values()), over, steps, inner)


def _key(key: Word, over: str, scope: Scope) -> Expr:
    value = infer(parse(key.text), scope)
    if over not in value.axes and value.axes:
        raise key.text.error(
            f"`{key}` has no axis {over}: it is no key of this attention",
            allowed=f"its axes: {listed(sorted(value.axes))}",
            do=f"carry a value with {over}; what is summed over steps may start from a number",
        )
    return value


def _check_step(one: Carried, over: str, steps: str, scope: Scope) -> None:
    dims = scope.context.dims
    others = [d for d in one.update.axes - {over, steps} if dims.sequence(d) == steps]
    if others:
        raise one.text.error(
            f"a step reads a value with {listed(sorted(others))}",
            allowed=f"the keys' axis {over}, and {steps} for what a step has of its own",
            do=f"give that input the axis {steps}",
        )
    if one.ref.name not in names_in(one.update):
        raise one.text.error(
            f"what a step makes of `{one.word}` does not read it",
            do=f"write what becomes of it: `{one.word}: {one.word} + …`",
        )


def check_lets(carry: Carry, stage: Attention, lets: Sequence[Equation]) -> None:
    """Nothing reads a key before the steps through a let.

    Raises:
        SpecError: a let that does.
    """
    values = {let.name: let.value for let in lets}
    for one in carry.names:
        if not isinstance(one.key, Ref):
            continue
        for _, value in stage_values(stage):
            for node in walk(value):
                if isinstance(node, Ref) and _reads(node.name, one.key.name, values):
                    raise one.word.text.error(
                        f"`{node.name}` reads `{one.word}` as it was before the steps",
                        do=f"write `{node.name}` under the attention's own `let:`",
                    )


def _reads(name: str, key: str, lets: dict[str, Expr]) -> bool:
    value = lets.get(name)
    return value is not None and any(n == key or _reads(n, key, lets) for n in names_in(value))


__all__ = ["Carried", "Carry", "check_lets", "query_of", "read_carry"]
