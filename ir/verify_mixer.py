"""The rules of the mixer level; they hold after loading and after every pass over mixers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .errors import VerificationError
from .expression import (
    ELEMENTWISE,
    REDUCTIONS,
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
    Solve,
)
from .mixer import (
    Attention,
    Equation,
    Line,
    Map,
    Mixer,
    Recurrence,
    Rounds,
    Select,
    Stage,
    State,
    assignments,
)
from .rewriting import bound_axes, walk
from .stages import values


def verify_mixer(mixer: Mixer) -> None:
    """Check a mixer: every name known before it is read, with its axes and kind; axes that fit.

    Raises:
        VerificationError: naming the mixer, the equation and the rule.
    """
    _Verifier(mixer).verify()


class _Verifier:
    def __init__(self, mixer: Mixer) -> None:
        self.mixer = mixer
        self.scalars = {p.name: Scalar(p.name, p.kind, p.runtime) for p in mixer.params}
        self.names: dict[str, Ref] = {}
        self.dims = _dims(mixer)

    def fail(self, what: str, rule: str) -> VerificationError:
        return VerificationError(f"mixer {self.mixer.name}: {what}: {rule}")

    def verify(self) -> None:
        self.declared_once()
        for item in self.mixer.inputs:
            if len(set(item.dims)) != len(item.dims):
                raise self.fail(f"input {item.name}", "an axis twice")
            self.names[item.name] = Ref(item.name, frozenset(item.dims), item.kind)
        for table in self.mixer.tables:
            self.names[table.name] = Ref(table.name, frozenset(table.dims), table.kind)
        self.sizes_and_params()
        for equation in self.mixer.lets:
            self.equation(equation, "let")
        for stage in self.mixer.stages:
            self.stage(stage)
        self.outputs()

    def declared_once(self) -> None:
        names = [
            *(i.name for i in self.mixer.inputs),
            *(p.name for p in self.mixer.params),
            *(t.name for t in self.mixer.tables),
            *(e.name for e in self.mixer.lets),
        ]
        for name in names:
            if names.count(name) > 1:
                raise self.fail(name, "declared twice")

    def sizes_and_params(self) -> None:
        values = {f"size {dim}": value for dim, value in self.mixer.sizes}
        values |= {f"param {p.name}": p.value for p in self.mixer.params}
        for item in self.mixer.inputs:
            values |= {f"range of {item.name}, end {n}": e for n, e in enumerate(item.range or ())}
            if item.unit is not None and item.unit not in item.dims:
                raise self.fail(f"input {item.name}", f"has no axis {item.unit} of unit vectors")
        for what, value in values.items():
            if value.axes:
                raise self.fail(what, f"has the axes {sorted(value.axes)}")
            self.expression(value, what, {})
        for dim, value in self.mixer.sizes:
            if value.kind is Kind.REAL:
                raise self.fail(f"size {dim}", "is a real number")

    def equation(self, equation: Equation, what: str) -> None:
        self.expression(equation.value, f"{what} {equation.name}", self.names)
        self.names[equation.name] = equation.ref

    def stage(self, stage: Stage) -> None:
        match stage:
            case Map(equations):
                for equation in equations:
                    self.equation(equation, "map")
            case Attention():
                self.attention(stage)
                self.names |= {result.name: result for result in stage.results}
            case Recurrence():
                _Step(self, stage).verify()
                self.names |= {result.name: result for result in stage.results}
            case Select():
                self.select(stage)
                self.names |= {result.name: result for result in stage.results}

    def attention(self, stage: Attention) -> None:
        for clause in ("score", "mask", "gain", "sink"):
            value: Expr | None = getattr(stage, clause)
            if value is not None:
                self.expression(value, clause, self.names)
        if stage.mask is not None and stage.mask.kind is not Kind.BOOL:
            raise self.fail("mask", "is not boolean")
        if stage.sink is not None and stage.over in stage.sink.axes:
            raise self.fail("sink", f"has the key axis {stage.over}")
        reals = (max(stage.score.kind, Kind.INT), Kind.REAL)
        score = [Ref("score", stage.score.axes, kind) for kind in reals]
        total = Ref("total", stage.queries, Kind.REAL)
        self.normalizer(stage.weight, "weight", score)
        self.normalizer(stage.denominator, "denominator", score, total)
        if not stage.weight.axes <= stage.queries | {stage.over}:
            raise self.fail("weight", "has axes that neither score nor mask has")
        if not stage.denominator.axes <= stage.queries:
            raise self.fail("denominator", "has axes that are no query axes")
        for output in stage.outputs:
            self.expression(output.value, f"output {output.name}", self.names)

    def select(self, stage: Select) -> None:
        for clause, value in values(stage):
            self.expression(value, clause, self.names)
            if clause in ("among", "always") and value.kind is not Kind.BOOL:
                raise self.fail(clause, "is not boolean")
        over = {*stage.over}
        if not over or len(over) != len(stage.over) or not over <= stage.score.axes:
            raise self.fail("select", "is over an axis twice, or over one that the score lacks")
        if over & stage.bound.axes or (stage.rule == "top" and stage.bound.kind is Kind.REAL):
            raise self.fail(stage.rule, "is no number of a row")
        if (stage.listed is None) != (stage.slots is None):
            raise self.fail("list", "lacks its name or its axis")
        if stage.slots is not None and stage.slots in stage.queries | over:
            raise self.fail("list", f"is along {stage.slots}, which the choice has already")

    def normalizer(self, value: Expr, what: str, scores: list[Ref], *own: Ref) -> None:
        """An expression that may read the form's own names; the score's of either kind."""
        errors = []
        for ref in scores:
            try:
                self.expression(value, what, self.names | {r.name: r for r in (ref, *own)})
            except VerificationError as error:
                errors.append(error)
        if len(errors) == len(scores):
            raise errors[0]

    def outputs(self) -> None:
        for output in self.mixer.outputs:
            if output.name not in self.names:
                raise self.fail(f"output {output.name}", "nothing makes it")
            value = self.names[output.name]
            if value.axes != frozenset(output.dims) or len(output.dims) != len(value.axes):
                raise self.fail(f"output {output.name}", f"has the axes {sorted(value.axes)}")

    def expression(self, expr: Expr, what: str, names: Mapping[str, Ref]) -> None:
        for child in expr.children:
            self.expression(child, what, names)
        if (rule := self.broken_rule(expr, names)) is not None:
            raise self.fail(what, f"`{expr}` {rule}")

    def broken_rule(self, expr: Expr, names: Mapping[str, Ref]) -> str | None:
        match expr:
            case Literal():
                return None
            case Size(dim) | Index(dim):
                return None if dim in self.dims else f"is of an unknown dim {dim}"
            case Scalar(name):
                return None if self.scalars.get(name) == expr else "is no param of this kind"
            case Ref(name):
                return _reference(expr, names.get(name))
            case Call(fn, args):
                return _call(fn, args)
            case Reduce():
                return self.reduction(expr)
            case Read(x, at):
                return self.read(x, at)
            case Cumsum(x, over):
                return None if over in x.axes else f"runs along {over}, which is not there"
            case Solve(matrix, vector, left, right):
                fits = left != right and {left, right} <= matrix.axes and left in vector.axes
                fits = fits and right not in vector.axes
                return None if fits else f"solves along {left} and {right}, which do not fit"
        return f"is a {type(expr).__name__}, which is no expression"

    def reduction(self, expr: Reduce) -> str | None:
        inner = frozenset[str]().union(*(c.axes for c in expr.children))
        groups = [dim for dim, _ in expr.group]
        if expr.op not in REDUCTIONS:
            return f"has the unknown reduction {expr.op}"
        if len(set(expr.over)) != len(expr.over) or not set(expr.over) <= inner:
            return "reduces over a dim twice, or over one that is not there"
        if set(groups) & (inner - set(expr.over)) or len(set(groups)) != len(groups):
            return "groups along a dim that is there already"
        if any(index.kind is Kind.REAL for _, index in expr.group):
            return "groups by a real number"
        if expr.where is not None and expr.where.kind is not Kind.BOOL:
            return "admits by a number"
        return _unknown(groups, self.dims)

    def read(self, x: Expr, at: tuple[tuple[str, Expr], ...]) -> str | None:
        keys = [dim for dim, _ in at]
        if not keys or len(set(keys)) != len(keys) or not set(keys) <= x.axes:
            return "reads along a dim twice, or along one that is not there"
        if any(index.kind is Kind.REAL for _, index in at):
            return "reads at a real number"
        return None


class _Step:
    """The rules of a recurrence: what its lines may read, and what they may assign."""

    def __init__(self, verifier: _Verifier, stage: Recurrence) -> None:
        self.verifier, self.stage = verifier, stage
        self.states = {state.name: state for state in stage.states}
        self.names = {**verifier.names, **{s.name: s.ref for s in stage.states}}

    def fail(self, name: str, rule: str) -> VerificationError:
        return self.verifier.fail(f"step of {self.stage.over}, {name}", rule)

    def verify(self) -> None:
        outside = self.verifier.names
        for name in [*self.states, *(ref.name for ref in self.stage.own)]:
            if name in outside:
                raise self.fail(name, "is a name outside the step too")
        if len(self.states) != len(self.stage.states):
            raise self.fail("states", "two have one name")
        for state in self.stage.states:
            self.state(state)
        reset = self.stage.reset
        if reset is not None:
            self.verifier.expression(reset, "reset", outside)
            if reset.kind is not Kind.BOOL:
                raise self.fail("reset", "is not boolean")
        self.lines(self.stage.step, ())

    def state(self, state: State) -> None:
        self.verifier.expression(state.initial, f"initial {state.name}", self.verifier.names)
        if self.stage.over in state.dims:
            raise self.fail(state.name, "has the recurrence's own axis")
        if not state.initial.axes <= state.dims:
            raise self.fail(state.name, "starts with axes that it does not have")
        if not set(state.listed) <= state.dims:
            raise self.fail(state.name, "lists axes that it does not have")
        if (rule := _unknown(state.dims, self.verifier.dims)) is not None:
            raise self.fail(state.name, rule)

    def lines(self, lines: tuple[Line, ...], loops: tuple[str, ...]) -> None:
        for line in lines:
            match line:
                case Equation():
                    self.equation(line, loops)
                case Rounds(over, inner):
                    if over in (self.stage.over, *loops):
                        raise self.fail(f"loop over {over}", "is inside a loop over the same axis")
                    self.lines(inner, (*loops, over))
                    for equation, rounds in assignments(inner):
                        if equation.name not in self.states:
                            axes = equation.value.axes | {over, *rounds}
                            self.names[equation.name] = Ref(
                                equation.name, axes, equation.value.kind
                            )

    def equation(self, equation: Equation, loops: tuple[str, ...]) -> None:
        name, rows = equation.name, {self.stage.over, *loops}
        self.verifier.expression(equation.value, f"step {name}", self.names)
        for node in walk(equation.value):
            if along := rows & set(bound_axes(node)):
                raise self.fail(name, f"`{node}` runs along {min(along)}, the loop's own axis")
        if (state := self.states.get(name)) is None:
            self.names[name] = equation.ref
        elif extra := sorted(equation.value.axes - rows - state.dims):
            raise self.fail(name, f"gets the axes {extra}, which the state does not have")
        elif equation.value.kind > state.kind:
            raise self.fail(name, "gets a value of a larger kind")


def _dims(mixer: Mixer) -> frozenset[str]:
    found = {dim for item in mixer.inputs for dim in item.dims}
    found |= {dim for output in mixer.outputs for dim in output.dims}
    found |= {dim for table in mixer.tables for dim in table.dims}
    found |= {dim for pair in (*mixer.sequences, *mixer.heads) for dim in pair}
    return frozenset(found | {dim for dim, _ in mixer.sizes})


def _reference(expr: Ref, known: Ref | None) -> str | None:
    if known is None:
        return "is read before anything makes it"
    return None if known == expr else f"has other axes or another kind than {known!r}"


def _call(fn: str, args: tuple[Expr, ...]) -> str | None:
    if ELEMENTWISE.get(fn) != len(args):
        return f"calls `{fn}` with {len(args)} arguments"
    conditions = args if fn in ("and", "or", "not") else args[:1] if fn == "where" else ()
    if any(condition.kind is not Kind.BOOL for condition in conditions):
        return "takes a number for a condition"
    if fn in ("floordiv", "mod") and any(a.kind is Kind.REAL for a in args):
        return "divides real numbers as integers"
    return None


def _unknown(dims: Iterable[str], known: frozenset[str]) -> str | None:
    missing = sorted(set(dims) - known)
    return f"has the unknown dim {missing[0]}" if missing else None


__all__ = ["verify_mixer"]
