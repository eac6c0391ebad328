"""An attention to keys that each step rewrites: a recurrence over the keys so far, then a softmax.

    state x [J]:  x = update(x) + key[t] * (j == t);   read = sum(q * x, D) for each t and j
    attention over J:  score with read[T=i, J=j] in it

The state has a column for each key, so many to a block. What a step does to all keys alike is what
a recurrence with a matrix state does to its columns, so it goes in chunks, all blocks of keys side
by side, where the algebra has such a form: for PaTH the block form of Yang et al. 2025, arXiv
2505.16381.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ....ir.expression import Call, Cumsum, Expr, Index, Literal, Read, Reduce, Ref, Size
from ....ir.mixer import Attention, Equation, Map, Recurrence, Stage, State
from ....ir.names import names_in
from ....ir.rewriting import rebuild, transform
from ....ir.stages import changed
from ..names.scope import Context
from ..text.positions import Text
from .over import replaced
from .rows import Rows

KEYS = 64  # columns of a state: keys that go along with each other, a program for so many


class Carried(Protocol):
    """A name that steps change."""

    @property
    def text(self) -> Text:
        """Where the spec says what a step does."""

    @property
    def key(self) -> Expr:
        """The value before any step."""

    @property
    def ref(self) -> Ref:
        """What stands for the value as a query sees it."""

    @property
    def update(self) -> Expr:
        """What a step makes of it."""


def cached(
    names: Sequence[Carried], axes: tuple[str, str, str], stage: Attention, context: Context
) -> tuple[Stage, ...]:
    """The recurrence over the steps and the attention that reads it; a map with what the step
    reads of other rows goes before. ``axes`` are those of the queries, the keys and the steps."""
    return _Cache(names, axes, context).run(stage)


class _Cache:
    def __init__(
        self, names: Sequence[Carried], axes: tuple[str, str, str], context: Context
    ) -> None:
        self.names, self.context = names, context
        self.query, self.over, self.steps = axes
        self.block, self.place = context.dims.blocks(self.over, KEYS)
        first = context.dims.call("mul", Index(self.block), Size(self.place))
        self.kept = context.dims.call("add", first, Index(self.place))  # the key of a column
        self.states = {one.ref.name: self._state(one) for one in names}
        self.rows = Rows(context, self.steps, lambda: frozenset(self.states))
        self.lines: list[Equation] = []
        self.read: dict[Expr, Ref] = {}  # of a clause, and the row of the step that has it

    def run(self, stage: Attention) -> tuple[Stage, ...]:
        following = [self._following(one) for one in self.names]
        if len(following) > 1:  # each from what all were
            following = [self._line("following", value) for value in following]
        for state, value in zip(self.states.values(), following, strict=True):
            self.lines.append(Equation(state.name, value))
        made = changed(stage, self._reading)
        loop = Recurrence(self.steps, tuple(self.states.values()), tuple(self.lines))
        before = tuple(self.rows.equations.values())
        self.context.results |= {ref.name for ref in loop.results}
        self.context.results |= {equation.name for equation in before}
        return (*([Map(before)] if before else []), loop, made)

    def _call(self, fn: str, *args: Expr | float) -> Expr:
        return self.context.dims.call(fn, *args)

    def _state(self, one: Carried) -> State:
        dims = one.ref.dims - {self.over} | {self.block, self.place}
        inner = {dim for node in _reductions(one.update, one.ref.name) for dim in node.over}
        listed = (*sorted(inner & dims), self.place)
        return State(one.ref.name, dims, Literal(0.0), listed=listed)

    def _following(self, one: Carried) -> Expr:
        """The keys after a step: those before it changed, its own as it is, none after it."""
        here = self._call("eq", self.kept, Index(self.steps))
        own = replaced(one.key, {self.over: Index(self.steps)})
        update = self._row(one.update)
        if _keeps_zero(one.update, frozenset(self.states)):
            new = self._call("mul", own, self._call("where", here, 1.0, 0.0))
            return self._call("add", update, new)
        return self._call("where", here, own, update)

    def _row(self, value: Expr) -> Expr:
        """``value`` in the step: its query is the row, its keys are those kept."""
        places: dict[str, Expr] = {self.over: self.kept}
        if self.query != self.steps:
            places[self.query] = Index(self.steps)

        def change(node: Expr) -> Expr | None:
            match node:
                case Read(Ref(name), at, fill) if name in self.states:
                    rest = tuple((d, e) for d, e in at if d != self.over)
                    state = self.states[name].ref
                    return Read(state, rest, fill, span=node.span) if rest else state
                case Ref(name) if name in self.states and self.over not in node.dims:
                    return self.states[name].ref
                case _:
                    return None

        return self.rows.checked(transform(replaced(value, places), change), (), hoist="carried")

    def _reading(self, value: Expr) -> Expr:
        """A clause of the attention, by rows of the step: what is summed of a key, or the key."""
        if names_in(value).isdisjoint(self.states):
            return value
        if not isinstance(value, Ref) and not isinstance(value, Reduce):
            return rebuild(value, self._reading)
        if value not in self.read:
            name = "read" if isinstance(value, Reduce) else f"{value.name}_rows"
            self.read[value] = self._line(name, self._row(value))
        row = self.read[value]
        at: list[tuple[str, Expr]] = []
        if self.query != self.steps:
            at.append((self.steps, Index(self.query)))
        f, key = self.context.dims.call, Index(self.over)
        block = Size(self.place)
        at += [(self.block, f("floordiv", key, block)), (self.place, f("mod", key, block))]
        return Read(row, tuple(at))

    def _line(self, name: str, value: Expr) -> Ref:
        equation = Equation(self.context.unused(name), value)
        self.lines.append(equation)
        return Ref(equation.name, value.axes | {self.steps}, value.kind)


def _reductions(value: Expr, name: str) -> list[Reduce]:
    found = [value] if isinstance(value, Reduce) and name in names_in(value) else []
    return [*found, *(node for child in value.children for node in _reductions(child, name))]


def _keeps_zero(value: Expr, names: frozenset[str]) -> bool:
    """Whether a value is 0 where what ``names`` stand for is."""
    match value:
        case Ref(name):
            return name in names
        case Call("mul", args):
            return any(_keeps_zero(arg, names) for arg in args)
        case Call("add" | "sub", args):
            return all(_keeps_zero(arg, names) for arg in args)
        case Call("neg" | "div", (x, *_)):
            return _keeps_zero(x, names)
        case Call("where", (_, *args)):
            return all(_keeps_zero(arg, names) for arg in args)
        case Reduce("sum", x) | Read(x, _, 0.0) | Cumsum(x):
            return _keeps_zero(x, names)
        case _:
            return False


__all__ = ["Carried", "cached"]
