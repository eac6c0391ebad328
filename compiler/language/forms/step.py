"""The lines of a step, read in order: what each name means, and which axes it has."""

from __future__ import annotations

from collections.abc import Iterator

from ....ir.errors import SpecError
from ....ir.expression import Expr, Kind, Ref, Span
from ....ir.mixer import Equation, Line, Rounds
from ....ir.names import names_in
from ..names.layouts import check_axes, known_axis, known_dim
from ..names.names import check_name
from ..names.scope import Barred, Scope
from ..schema import AnyLine, RoundsSpec
from ..terms.complexes import PARTS, Complex, pair, parts, together
from ..terms.infer import infer
from ..text.grammar import parse_assignment
from ..text.positions import Text
from ..text.source import listed
from ..text.surface import Name
from .rows import Rows
from .states import Named, Place, States
from .trace import OpaqueError, Trace, gradient


def assigned(step: tuple[AnyLine, ...]) -> Iterator[Name]:
    """The names that the lines of a step assign, in order, inner loops included."""
    for line in step:
        if isinstance(line, RoundsSpec):
            yield from assigned(line.step)
        else:
            yield parse_assignment(line)[0]


class Step:
    """Reads the lines of one step, any number of times until the axes of its states are known."""

    def __init__(
        self,
        step: tuple[AnyLine, ...],
        scope: Scope,
        states: States,
        rows: Rows,
        named: Named,
    ) -> None:
        self.step, self.outer, self.states = step, scope, states
        self.rows, self.named = rows, named
        self.scope = scope
        self.final = False
        self.loops: tuple[str, ...] = ()  # around the line at hand
        self.trace = Trace(scope.context.unused)
        self.made: dict[str, tuple[str, ...]] = {}  # own names so far, with the loops around

    def settle(self) -> None:
        """Find the axes of the states: read the lines until nothing more flows in."""
        while True:
            before = self.states.snapshot()
            with self.outer.context.trial():
                self._begin()
                self._lines(self.step, ())
            if self.states.snapshot() == before:
                return

    def read(self) -> tuple[Line, ...]:
        """The lines, the states' axes being known."""
        self.final = True
        self._begin()
        return self._lines(self.step, ())

    def results(self) -> dict[str, Expr]:
        """The step's own names as later stages see them: a row for each row of the loop."""
        return {name: self._whole(name, self.states.over) for name in self.made}

    def _whole(self, name: str, over: str) -> Expr:
        """What a name of a loop over ``over`` is after the loop."""
        value = self.scope.names[name]
        assert isinstance(value, Expr)
        return together(
            Ref(ref.name, ref.axes | {over}, ref.kind)
            for ref in parts(value)
            if isinstance(ref, Ref)
        )

    def _begin(self) -> None:
        self.made = {}
        self.scope = self.outer.child()
        for target in assigned(self.step):
            name = target.name
            if name in self.states.drafts or name in self.scope.names:
                continue
            if self.outer.find(name) is None and not self.outer.context.dims.indexed(name):
                self.scope.names[name] = Barred(
                    f"`{name}` is read before it has a value; line {target.span.line} assigns it",
                    f"move that line up, or declare `{name}` under `state:` to read the row before",
                )
        for name in self.states.drafts:
            self.scope.names[name] = self.states.ref(name)
        self.trace = Trace(self.outer.context.unused)
        self.scope.gradient = self._gradient

    def _lines(self, lines: tuple[AnyLine, ...], loops: tuple[str, ...]) -> tuple[Line, ...]:
        """The lines of the step or of a round, with copies of what a derivative needs later."""
        found: list[Line] = []
        self._begin_round(found, {target.name for target in assigned(lines)})
        for line in lines:
            self.loops, self.trace.block = loops, found
            if isinstance(line, RoundsSpec):
                self._rounds(line, loops, found)
            else:
                self._assignment(line, loops, found)
        return self.trace.with_copies(found)

    def _begin_round(self, block: list[Line], changed: set[str]) -> None:
        """The states as the row, or the round, before left them."""
        earlier = tuple(version.ref.name for version in self.trace.versions)
        for name in self.states.drafts:
            if earlier and name not in changed:
                continue
            for ref in parts(self.states.ref(name)):
                assert isinstance(ref, Ref)
                self.trace.assign(ref, None, block, earlier)

    def _rounds(self, spec: RoundsSpec, loops: tuple[str, ...], block: list[Line]) -> None:
        context = self.outer.context
        over = context.dims.use(known_dim(spec.over, context.dims.known), spec.over.span)
        if over in (self.states.over, *loops):
            raise spec.over.error(
                f"an inner loop over {over} inside a loop over {over}", do="name another axis"
            )
        if having := [name for name, draft in self.states.drafts.items() if over in draft.axes]:
            raise spec.over.error(
                f"an inner loop over {over}, an axis of the state `{having[0]}`",
                allowed="axes of the loop's own values: a state is whole in each round",
                do="name another axis",
            )
        before, outside, first = dict(self.made), dict(self.trace.now), len(self.trace.versions)
        adjoints = dict(self.trace.adjoints)
        block.append(Rounds(over, self._lines(spec.step, (*loops, over))))
        self.trace.adjoints = adjoints  # those made in the loop are of its rounds
        for name in self.made.keys() - before.keys():  # whole after the loop
            self.scope.names[name] = self._whole(name, over)
        for target in dict.fromkeys(target.name for target in assigned(spec.step)):
            value = self.scope.names[target]
            for ref in parts(value) if isinstance(value, Expr) else ():
                assert isinstance(ref, Ref)
                of = self.trace.close(first, ref.name, outside.get(ref.name))
                self.trace.assign(ref, None, block, of)

    def _assignment(self, text: Text, loops: tuple[str, ...], block: list[Line]) -> None:
        context = self.outer.context
        target, axes, node, written = parse_assignment(text)
        name = check_name(text, target.name, context, target.span)
        try:
            value = context.settle(infer(node, self.scope), node.span)
        except SpecError:
            if self.final:
                raise
            self._bar(name)  # it may read an axis that has yet to flow in
            return
        place = Place(context.source, target.span)
        value = self.rows.checked(value, loops, hoist=name if self.final else None)
        if name in self.states.drafts:
            said = frozenset(axis.name for axis in axes or ())
            names = self._to_state(name, value, loops, said, place)
            shape: Expr = self.states.ref(name)
        else:
            names = self._to_own(name, value, loops, place)
            shape = value
        if axes is not None:
            self._check_annotation(name, shape, axes, loops)
        for equation in self._equations(names, value, written, target):
            block.append(equation)
            axes_now = self.states.part_axes(equation.name) or equation.value.axes
            ref = Ref(equation.name, axes_now, equation.value.kind)
            self.trace.assign(ref, equation.value, block)

    def _bar(self, name: str) -> None:
        if name not in self.states.drafts:
            self.scope.names[name] = Barred(f"`{name}` has no value yet", "move this line down")

    def _gradient(self, loss: Expr, name: str, span: Span) -> Expr:
        """``grad(loss, name)``; while axes are being found, a value with the axes it will have."""
        context = self.outer.context
        ref = self.scope.names.get(name)
        if not isinstance(ref, Ref):
            found = "complex" if isinstance(ref, Complex) else "no state and no name of the step"
            raise context.error(
                span,
                f"`{name}` is {found}; `grad` can't go by it",
                allowed=listed(n for n, v in self.scope.names.items() if isinstance(v, Ref)),
            )
        rows = frozenset({self.states.over, *self.loops})
        if not self.final:
            return Ref(
                f"{name}@", ref.axes | self.states.flowing(name, loss.axes - rows), Kind.REAL
            )
        try:
            slope = gradient(self.trace, loss, ref, rows)
            return self.trace.plain(slope, f"{name}_grad")
        except OpaqueError as error:
            raise context.error(
                span,
                f"an inner loop assigns `{error.name}` between `{name}` and the loss",
                allowed="`grad` through plain lines",
                do="take the gradient inside the loop, or write the loop's rounds out",
            ) from None

    def _to_state(
        self,
        name: str,
        value: Expr,
        loops: tuple[str, ...],
        said: frozenset[str],
        place: Place,
    ) -> list[str]:
        self.states.check_flow(name, value, loops, place, said)
        self.states.flow_in(name, value, loops)
        if self.final:
            self.states.check_whole(name, value, loops, place)
        return self.states.names(name)

    def _to_own(self, name: str, value: Expr, loops: tuple[str, ...], place: Place) -> list[str]:
        if name in self.made and len(self.made[name]) < len(loops):
            raise place.source.error(
                place.span,
                f"`{name}` has a value before this inner loop and is assigned in it",
                allowed="names of the loop's own, and states",
                do=f"declare `{name}` under `state:` to carry it from round to round",
            )
        self.made[name] = loops
        suffixes = PARTS if isinstance(value, Complex) else ("",)
        names = [self.named(name, suffix) for suffix in suffixes]
        refs = (Ref(n, p.axes, p.kind) for n, p in zip(names, parts(value), strict=True))
        self.scope.names[name] = together(refs)
        return names

    def _equations(self, names: list[str], value: Expr, text: str, target: Name) -> list[Equation]:
        """``name = value``, or the two parts; a part that the other still reads waits."""
        if len(names) == 1:
            return [Equation(names[0], value, text, target.span)]
        first, second = pair(value)
        waiting = names[0]
        if names[0] in names_in(second):
            waiting = self.named(target.name, "_new")
        lines = [
            Equation(waiting, first, span=target.span),
            Equation(names[1], second, span=target.span),
        ]
        if waiting != names[0]:
            ref = Ref(waiting, first.axes, first.kind)
            lines.append(Equation(names[0], ref, span=target.span))
        return lines

    def _check_annotation(
        self, name: str, value: Expr, axes: tuple[Name, ...], loops: tuple[str, ...]
    ) -> None:
        """Compare axes with an annotation; the axes of the loops may stand in it or not."""
        if not self.final:
            return
        context, rows = self.outer.context, {self.states.over, *loops}
        declared = [known_axis(axis, context.source, context.dims.known) for axis in axes]
        shape = Ref(name, value.axes - rows, value.kind)
        kept = [dim for dim in declared if dim not in rows]
        span = axes[0].span if axes else None
        heads = context.dims.heads
        check_axes(f"`{name}`", shape, kept, context.source, span, heads=heads)


__all__ = ["Step", "assigned"]
