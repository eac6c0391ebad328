"""An inner loop of a recurrence, laid out in time: T rows of R rounds are T*R rows.

Several rank-one corrections per token are then one per row, which the chunk form takes. What the
step does before the loop happens at the first round of a row, what it does after at the last:
before --> after::

    S = a * S                                     S = where(r == 0, a[t], 1) * S
    {over: R, step: [S = S + u * ...]}            S = S + u[t, r] * ...
    o = sum(q * S, D)                             o = sum(q[t] * S, D)       read where r == R - 1

with t = f // R and r = f % R for the row f.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ....ir.expression import Expr, Index, Literal, Read, Ref, Size, call
from ....ir.mixer import Equation, Recurrence, Rounds
from ....ir.names import names_in
from ....ir.rewriting import rebuild


@dataclass(frozen=True, slots=True)
class Flat:
    """A recurrence over ``axis``, whose size is ``size`` (that of T times that of R).

    The axis is new: whoever plans the recurrence declares it with this size, as a mixer declares a
    derived size; where T is a sequence that is cut (packing, decoding), the cut falls between rows
    of T, at multiples of R. ``rows`` pairs each of the step's own names with the name of
    ``recurrence`` that holds it, which has ``axis`` where it had T or T and R, and with the
    position along ``axis`` where its row stands, in T and R. ``parts`` are T and R with their
    positions, as expressions in that of ``axis``.
    """

    recurrence: Recurrence
    axis: str
    size: Expr
    parts: tuple[tuple[str, Expr], tuple[str, Expr]]
    rows: tuple[tuple[str, Ref, Expr], ...]


def flatten(recurrence: Recurrence, axis: str | None = None) -> Flat | None:
    """The recurrence with its inner loop laid out in time.

    None where it has no inner loop, or several, or where a row's value that depends on the state
    would have to be kept from one round to the next.
    """
    loops = [line for line in recurrence.step if isinstance(line, Rounds)]
    if len(loops) != 1 or any(isinstance(line, Rounds) for line in loops[0].step):
        return None
    (loop,) = loops
    split = recurrence.step.index(loop)
    parts = _Parts(
        recurrence,
        tuple(_equations(recurrence.step[:split])),
        tuple(_equations(loop.step)),
        tuple(_equations(recurrence.step[split + 1 :])),
        loop.over,
        axis or f"{recurrence.over}{loop.over}",
    )
    return None if parts.keeps_values() else parts.flat()


def _equations(lines: tuple[Equation | Rounds, ...]) -> Iterator[Equation]:
    return (line for line in lines if isinstance(line, Equation))


@dataclass(frozen=True, slots=True)
class _Parts:
    stage: Recurrence
    before: tuple[Equation, ...]
    inside: tuple[Equation, ...]
    after: tuple[Equation, ...]
    rounds: str
    axis: str

    @property
    def states(self) -> frozenset[str]:
        return frozenset(state.name for state in self.stage.states)

    def keeps_values(self) -> bool:
        """Whether a line reads a name of the step that its own round does not make again.

        A name of the first round that depends on the state is gone in the next; a name of the
        loop is one round's, and after the loop it stands for all of them.
        """
        gone: set[str] = set()
        for line in self.before:
            if line.name not in self.states and names_in(line.value) & (self.states | gone):
                gone.add(line.name)
        made = {line.name for line in self.inside} - self.states
        again = {line.name for line in self.before} & made
        inside = frozenset[str]().union(*(names_in(line.value) for line in self.inside))
        after = frozenset[str]().union(*(names_in(line.value) for line in self.after))
        return bool(again or (inside | after) & gone or after & made)

    def flat(self) -> Flat:
        position, rounds = Index(self.axis), Size(self.rounds)
        row = call("floordiv", position, rounds)
        turn: Expr = call("mod", position, rounds)
        last: Expr = call("sub", rounds, 1)
        if self.stage.reverse:
            turn = call("sub", last, turn)
        first_round, last_round = call("eq", turn, 0), call("eq", turn, last)

        def moved(expr: Expr) -> Expr:
            return self._moved(expr, row, turn)

        lines = [
            *(self._line(line, moved(line.value), first_round) for line in self.before),
            *(self._line(line, moved(line.value), None) for line in self.inside),
            *(self._line(line, moved(line.value), last_round) for line in self.after),
        ]
        reset = self.stage.reset
        stage = replace(
            self.stage,
            over=self.axis,
            step=tuple(lines),
            reset=None if reset is None else call("and", first_round, moved(reset)),
        )
        size = call("mul", Size(self.stage.over), rounds)
        parts = ((self.stage.over, row), (self.rounds, turn))
        return Flat(stage, self.axis, size, parts, tuple(self._rows(stage)))

    def _line(self, line: Equation, value: Expr, when: Expr | None) -> Equation:
        if line.name not in self.states:
            return Equation(_flat(line.name), value, span=line.span)
        if when is not None:
            state = next(s.ref for s in self.stage.states if s.name == line.name)
            value = call("where", when, value, state)
        return Equation(line.name, value, span=line.span)

    def _moved(self, expr: Expr, row: Expr, turn: Expr) -> Expr:
        """An expression of a row and a round as one of a row of the flat axis."""
        over = {self.stage.over: row, self.rounds: turn}
        match expr:
            case Index(dim) if dim in over:
                return over[dim]
            case Ref(name, dims, kind) if name in self.own:
                return Ref(_flat(name), (dims - set(over)) | {self.axis}, kind)
            case Ref():
                at = tuple((dim, index) for dim, index in over.items() if dim in expr.axes)
                return Read(expr, at) if at else expr
            case _:
                return rebuild(expr, lambda part: self._moved(part, row, turn))

    @property
    def own(self) -> frozenset[str]:
        """The step's own names."""
        lines = (*self.before, *self.inside, *self.after)
        return frozenset(line.name for line in lines) - self.states

    def _rows(self, stage: Recurrence) -> Iterator[tuple[str, Ref, Expr]]:
        """Each own name, read at the round that made it."""
        base = call("mul", Index(self.stage.over), Size(self.rounds))
        last = call("sub", Size(self.rounds), 1)
        made = {ref.name: ref for ref in stage.own}
        turns: dict[str, Expr] = {line.name: Literal(0) for line in self.before}
        turns |= {line.name: last for line in self.after}
        turns |= {line.name: Index(self.rounds) for line in self.inside}
        for ref in self.stage.own:
            turn = turns[ref.name]
            if self.stage.reverse:
                turn = call("sub", last, turn)
            yield ref.name, made[_flat(ref.name)], call("add", base, turn)


def _flat(name: str) -> str:
    return f"{name}_flat"
