"""Inputs that a caller leaves out: each is its default, a number without axes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from .expression import Cumsum, Expr, Index, Kind, Literal, Read, Reduce, Ref, Size, Solve, call
from .mixer import (
    Attention,
    Equation,
    Input,
    Line,
    Map,
    Mixer,
    Recurrence,
    Rounds,
    Select,
    Stage,
    assignments,
)
from .rewriting import bound_axes, rebuild, walk
from .stages import changed as with_changed
from .stages import values


def without_inputs(mixer: Mixer, names: Iterable[str]) -> Mixer:
    """``mixer`` with the inputs ``names`` replaced by their defaults.

    ``score: qk + bias`` without ``bias`` --> ``score: qk + 0.0``. Names that depend on an absent
    input lose the axes that only it had; a read, sum or running sum of a number is a number. An
    axis that an output would lose is one of the number then.
    """
    absent = {i.name: i for i in mixer.inputs if i.name in set(names)}
    if not absent:
        return mixer
    values: dict[str, Expr] = {name: _default(declared) for name, declared in absent.items()}
    change = _Change(mixer, values, frozenset(e.name for e in mixer.lets))
    made = change.mixer_without(absent)
    lost = {
        dim
        for output in mixer.outputs
        for dim in output.dims
        if output.name in change.values and dim not in change.values[output.name].axes
    }
    if not lost:
        return made
    values = {n: _along(_default(i), *(d for d in i.dims if d in lost)) for n, i in absent.items()}
    return _Change(mixer, values, change.let_names).mixer_without(absent)


def _default(declared: Input) -> Literal:
    """The number that an absent input is, of its kind: ``default: 1`` of a real one is 1.0."""
    assert declared.default is not None, declared.name
    of_kind = {Kind.REAL: float, Kind.INT: int, Kind.BOOL: bool}
    return Literal(of_kind[declared.kind](declared.default))


def free_dims(mixer: Mixer) -> frozenset[str]:
    """Every dim whose size a run of ``mixer`` needs."""
    found = {dim for o in mixer.outputs for dim in o.dims}
    found |= {dim for i in mixer.inputs for dim in i.dims}
    for stage in mixer.stages:
        if isinstance(stage, Recurrence):
            found |= {stage.over}.union(*(state.dims for state in stage.states))
        elif isinstance(stage, Select) and stage.slots is not None:
            found.add(stage.slots)
    for expr in expressions(mixer):
        found |= dims_in(expr)
    return frozenset(found)


def expressions(mixer: Mixer) -> list[Expr]:
    """All expressions of the lets and stages."""
    found = [e.value for e in mixer.lets]
    return [*found, *(value for stage in mixer.stages for _, value in values(stage))]


def dims_in(expr: Expr) -> set[str]:
    """The dims that an expression has, runs along or asks the length of."""
    found = set[str]()
    for node in walk(expr):
        found |= node.axes.union(bound_axes(node))
        if isinstance(node, Size):
            found.add(node.dim)
    return found


@dataclass
class _Change:
    """The rewriting of one mixer: what each name has become so far."""

    mixer: Mixer
    values: dict[str, Expr] = field(default_factory=dict)
    let_names: frozenset[str] = frozenset()
    done: dict[str, Equation] = field(default_factory=dict)

    def mixer_without(self, absent: Collection[str]) -> Mixer:
        """The whole mixer, without the inputs ``absent``."""
        # Stages first: a stage's own let may use what an earlier stage makes.
        stages = tuple(self.stage(stage) for stage in self.mixer.stages)
        return replace(
            self.mixer,
            inputs=tuple(i for i in self.mixer.inputs if i.name not in absent),
            lets=tuple(self.let(e.name) for e in self.mixer.lets),
            stages=stages,
        )

    def let(self, name: str) -> Equation:
        if name not in self.done:
            equation = next(e for e in self.mixer.lets if e.name == name)
            self.done[name] = replace(equation, value=self.expr(equation.value))
            self.values[name] = self.done[name].ref
        return self.done[name]

    def expr(self, expr: Expr) -> Expr:
        return _transform_shared(expr, self._node, {})

    def _node(self, node: Expr) -> Expr:
        match node:
            case Ref(name):
                if name in self.let_names:
                    self.let(name)
                return self.values.get(name, node)
            case Reduce() | Read() | Cumsum() | Solve():
                return without_axis(node, self.mixer)
            case _:
                return node

    def stage(self, stage: Stage) -> Stage:
        match stage:
            case Map(equations):
                changed = []
                for equation in equations:
                    changed.append(replace(equation, value=self.expr(equation.value)))
                    self.values[equation.name] = changed[-1].ref
                return replace(stage, equations=tuple(changed))
            case Attention():
                return self._attention(stage)
            case Recurrence():
                return self._recurrence(stage)
            case Select():
                made = with_changed(stage, self.expr)
                made = replace(made, score=_along(made.score, *stage.over))
                self.values |= {result.name: result for result in made.results}
                return made

    def _recurrence(self, stage: Recurrence) -> Recurrence:
        """The recurrence with the axes that still flow into its states."""
        reset = None if stage.reset is None else self.expr(stage.reset)
        states = tuple(replace(s, initial=self.expr(s.initial)) for s in stage.states)
        everywhere = frozenset[str]() if reset is None else reset.axes - {stage.over}
        flows = {s.name: everywhere | {*s.listed} | s.initial.axes for s in states}
        while True:
            self.values |= {s.name: Ref(s.name, flows[s.name], s.kind) for s in states}
            step = self._step(stage.step, frozenset(flows))
            found = dict(flows)
            for equation, rounds in assignments(step):
                if equation.name in found:
                    found[equation.name] |= equation.value.axes - {stage.over, *rounds}
            if found == flows:
                break
            flows = found
        states = tuple(replace(s, dims=flows[s.name]) for s in states)
        changed = replace(stage, states=states, step=step, reset=reset)
        for result in changed.results:
            self.values[result.name] = result
        return changed

    def _step(self, lines: tuple[Line, ...], states: frozenset[str]) -> tuple[Line, ...]:
        changed: list[Line] = []
        for line in lines:
            match line:
                case Equation(name, value):
                    equation = replace(line, value=self.expr(value))
                    changed.append(equation)
                    if name not in states:
                        self.values[name] = equation.ref
                case Rounds(over, inner):
                    step = self._step(inner, states)
                    changed.append(Rounds(over, step))
                    for equation, rounds in assignments(step):
                        if equation.name not in states:
                            axes = equation.value.axes | {over, *rounds}
                            whole = Ref(equation.name, axes, equation.value.kind)
                            self.values[equation.name] = whole
        return tuple(changed)

    def _attention(self, stage: Attention) -> Attention:
        def maybe(expr: Expr | None) -> Expr | None:
            return None if expr is None else self.expr(expr)

        changed = replace(
            stage,
            score=self.expr(stage.score),
            mask=maybe(stage.mask),
            sink=maybe(stage.sink),
            gain=maybe(stage.gain),
            outputs=tuple(replace(o, value=self.expr(o.value)) for o in stage.outputs),
        )
        own = _own_names(stage, changed)
        for name in own:
            self.values[name] = own[name]
        weight, denominator = self.expr(stage.weight), self.expr(stage.denominator)
        for name in own:
            del self.values[name]
        changed = replace(changed, weight=weight, denominator=denominator)
        for result in changed.results:
            self.values[result.name] = result
        return changed


def _own_names(old: Attention, new: Attention) -> dict[str, Ref]:
    """What ``score`` and ``total`` are inside the changed normaliser."""
    found: dict[str, Ref] = {}
    for node in (*walk(old.weight), *walk(old.denominator)):
        if isinstance(node, Ref) and node.name in ("score", "total"):
            dims = node.dims & (new.queries | {old.over})
            if node.name == "score" and node.dims == old.score.axes:
                dims = new.score.axes
            found[node.name] = Ref(node.name, dims, node.tensor_kind)
    return found


def without_axis(expr: Expr, mixer: Mixer) -> Expr:
    """A read, sum or running sum along an axis that x no longer has, in simpler terms.

    A read of a number --> the number inside the dim and the fill outside.
    """
    match expr:
        case Read(x, at, fill):
            return _read_of_number(expr, x, at, fill, mixer)
        case Solve(matrix, vector, left, right):
            matrix, vector = _along(matrix, left, right), _along(vector, left)
            return replace(expr, matrix=matrix, vector=vector)
        case _:
            return sum_without_axis(expr)


def sum_without_axis(expr: Expr) -> Expr:
    """A sum or running sum along an axis that x no longer has, in simpler terms.

    ``sum(2.0, D)`` --> ``2.0 * D``; ``cumsum(1.0, T)`` --> ``1.0 * (t + 1)``; others as they are.
    """
    match expr:
        case Reduce("sum", x, over, None, ()):
            gone = [dim for dim in over if dim not in x.axes]
            if not gone:
                return expr
            for dim in gone:
                x = call("mul", x, Size(dim))
            kept = tuple(dim for dim in over if dim not in gone)
            return replace(expr, x=x, over=kept) if kept else x
        case Cumsum(x, over, reverse, exclusive) if over not in x.axes:
            before: Expr = Index(over)
            if reverse:
                before = call("sub", call("sub", Size(over), 1), before)
            return call("mul", x, before if exclusive else call("add", before, 1))
        case _:
            return expr


def _along(x: Expr, *dims: str) -> Expr:
    """The value with the axes ``dims``, the same along those that it lacked."""
    for dim in dims:
        if dim not in x.axes:
            x = call("where", call("ge", Index(dim), 0), x, _as_written(0.0, x))
    return x


def _read_of_number(
    expr: Expr, x: Expr, at: tuple[tuple[str, Expr], ...], fill: float, mixer: Mixer
) -> Expr:
    gone = [(dim, index) for dim, index in at if dim not in x.axes]
    if not gone:
        return expr
    kept = tuple((dim, index) for dim, index in at if dim in x.axes)
    value = Read(x, kept, fill) if kept else x
    if isinstance(x, Literal) and float(x.value) == fill:
        return x
    for dim, index in gone:
        if (dim, *index.axes) not in mixer.heads:  # a group's index is never outside
            inside = call("and", call("ge", index, 0), call("lt", index, Size(dim)))
            value = call("where", inside, value, _as_written(fill, value))
    return value


def _as_written(fill: float, value: Expr) -> Literal:
    if value.kind is Kind.BOOL:
        return Literal(bool(fill))
    return Literal(int(fill) if float(fill).is_integer() else fill)


def _transform_shared(expr: Expr, change: Callable[[Expr], Expr], done: dict[int, Expr]) -> Expr:
    """``transform`` that visits a node once, however many parents share it."""
    if id(expr) not in done:
        done[id(expr)] = change(rebuild(expr, lambda child: _transform_shared(child, change, done)))
    return done[id(expr)]
