"""The adjoint of a recurrence: a recurrence that runs the other way, over the cotangents of states.

With s' = f(s, x) in each row, the cotangent p of a state goes p = (df/ds)^T p' from the last row
to the first; the states before each row come from the forward pass, run again. The loop holds what
depends on the rows after; what a row gives to the inputs is computed from its adjoints for all
rows at once, so that the gradient of a weight is a product of matrices, not a sum in the loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ....ir.errors import UnsupportedError
from ....ir.expression import Expr, Kind, Literal, Ref, call
from ....ir.mixer import Equation, Recurrence, Rounds, State
from ....ir.names import names_in
from ....ir.rewriting import with_names
from ...analysis.gradients.derivatives import pullback, sum_to
from ...analysis.gradients.partials import ZERO
from ...analysis.recurrence.evaluation import spread
from .adjoints import Adjoints


def recurrence_adjoint(stage: Recurrence, adjoints: Adjoints, given: Mapping[str, Expr]) -> None:
    """Add what a recurrence adds to the adjoints of the names that it reads.

    ``given`` are the adjoints of its results: rows of the step's own names, last states.

    Raises:
        UnsupportedError: an inner loop.
    """
    _Recurrence(stage, adjoints, given).run()


class _Recurrence:
    def __init__(self, stage: Recurrence, adjoints: Adjoints, given: Mapping[str, Expr]) -> None:
        self.stage, self.adjoints, self.given = stage, adjoints, given
        self.rows = frozenset({stage.over})
        self.states = {state.name: state for state in stage.states}
        self.before = {
            name: Ref(adjoints.unused(f"{name}_before"), state.dims | self.rows, state.kind)
            for name, state in self.states.items()
        }
        self.lines, self.last = self._single_assignment()
        real = (*self.before.values(), *(line.ref for line in self.lines))
        self.active = frozenset(ref.name for ref in real if ref.kind is Kind.REAL)
        self.cotangents = {
            name: State(
                adjoints.unused(f"d_{name}_after"),
                state.dims,
                given.get(name, Literal(0.0)),
                listed=state.listed,
            )
            for name, state in self.states.items()
            if state.kind is Kind.REAL
        }

    def run(self) -> None:
        """The forward pass again, the loop, and what its adjoints give to the names outside."""
        above = self._loop()
        outside = self.adjoints.active - self.active
        parts: list[dict[str, Expr]] = [
            pullback(line.value, above[line.name], outside)
            for line in self.lines
            if line.name in above
        ]
        for name, cotangent in self.cotangents.items():
            initial = self.states[name].initial
            whole = sum_to(cotangent.ref, cotangent.dims, initial.axes)
            parts.append(pullback(initial, whole, outside))
        self._define(names_in(*(value for part in parts for value in part.values())))
        for part in parts:
            self.adjoints.add(part)

    # ---------------------------------------------------------------------------- the step

    def _single_assignment(self) -> tuple[list[Equation], dict[str, Ref]]:
        """The lines, each with a name of its own, and the last version of every name.

        A version has a row for each row of the loop, and a state's has all the state's axes.
        """
        now: dict[str, Ref] = dict(self.before)
        lines: list[Equation] = []
        for line in self.stage.step:
            if isinstance(line, Rounds):
                raise UnsupportedError(
                    f"the derivative of an inner loop (over {line.over}) inside a recurrence"
                )
            value = with_names(line.value, now)
            state = self.states.get(line.name)
            axes = (value.axes if state is None else state.dims) | self.rows
            kind = value.kind if state is None else state.kind
            ref = Ref(self.adjoints.unused(f"{line.name}_now"), axes, kind)
            lines.append(Equation(ref.name, spread(value, ref)))
            now[line.name] = ref
        return lines, now

    # ---------------------------------------------------------------------------- the loop

    def _loop(self) -> dict[str, Expr]:
        """Emit the loop; the adjoint rows of every line, by the name of its version."""
        adjoints = self.adjoints
        inside = Adjoints(adjoints.taken, self.active)
        for name, ref in self.last.items():
            if name in self.cotangents:
                inside.add({ref.name: self.cotangents[name].ref})
            elif name not in self.states and name in self.given:
                inside.add({ref.name: self.given[name]})
        made: list[Equation] = []
        rows: dict[str, Expr] = {}
        for line in reversed(self.lines):
            above = inside.found.get(line.name)
            if above is not None:
                made.append(Equation(adjoints.unused(f"d_{line.name}"), above))
                own = made[-1].ref
                rows[line.name] = Ref(own.name, own.axes | self.rows, Kind.REAL)
                inside.add(pullback(line.value, own, self.active, self.rows))
        for name, cotangent in self.cotangents.items():
            made.append(Equation(cotangent.name, self._passed_on(name, inside.found)))
        self._emit(made)
        return rows

    def _passed_on(self, name: str, found: Mapping[str, Expr]) -> Expr:
        """The cotangent of a state that the row before gets."""
        value = found.get(self.before[name].name, ZERO)
        return value if self.stage.reset is None else call("where", self.stage.reset, 0.0, value)

    def _emit(self, made: list[Equation]) -> None:
        forward = _needed(self.lines, names_in(*(e.value for e in made)))
        self.adjoints.stage(self._again())
        self.adjoints.stage(
            Recurrence(
                self.stage.over,
                tuple(self.cotangents.values()),
                (*forward, *made),
                reverse=not self.stage.reverse,
            )
        )
        self.in_loop = {e.name for e in forward}

    def _again(self) -> Recurrence:
        """The forward pass for the states before each row, under names of its own."""
        stage = self.stage
        names: dict[str, Expr] = {}
        for ref in (*(s.ref for s in stage.states), *stage.own):
            names[ref.name] = Ref(self.adjoints.unused(f"{ref.name}_again"), ref.dims, ref.kind)
        kept = [Equation(self.before[n].name, names[n]) for n in self.states]
        lines: list[Equation] = []
        now = {s.name: names[s.name] for s in stage.states}
        for line in stage.step:
            assert isinstance(line, Equation)
            renamed = names[line.name]
            assert isinstance(renamed, Ref)
            lines.append(Equation(renamed.name, with_names(line.value, now)))
            if line.name not in self.states:
                now[line.name] = lines[-1].ref
        states = tuple(replace(s, name=str(now[s.name])) for s in stage.states)
        step = _needed(lines, frozenset(s.name for s in states))
        return Recurrence(stage.over, states, (*kept, *step), stage.reset, stage.reverse)

    def _define(self, read: frozenset[str]) -> None:
        """The lines' values for all rows at once, those that the loop has not made."""
        missing = [e for e in self.lines if e.name not in self.in_loop]
        self.adjoints.waiting += _needed(missing, read)


def _needed(lines: list[Equation], read: frozenset[str]) -> tuple[Equation, ...]:
    """The lines that some names need, in order."""
    kept: list[Equation] = []
    for line in reversed(lines):
        if line.name in read:
            kept.append(line)
            read |= names_in(line.value)
    return tuple(reversed(kept))


__all__ = ["recurrence_adjoint"]
