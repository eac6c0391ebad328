"""The lines of a step in single assignment: each assignment makes a version of its name.

``S = a * S`` twice becomes ``S.1 = a * S.0`` and ``S.2 = a * S.1``, so that an expression means
one thing wherever it stands. Version 0 of a state is its value before the row, the reset applied.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ....ir.expression import Expr, Kind, Ref, call
from ....ir.mixer import Equation, Line, Recurrence, Rounds
from ....ir.node import At, Point
from ....ir.rewriting import with_names
from ....ir.single_assignment import Handed, Repeated, Step, Version, before_row


def versions(recurrence: Recurrence) -> Step:
    """The step of a recurrence in single assignment."""
    namer = _Namer({state.name: state.ref for state in recurrence.states})
    before = {state.name: before_row(state) for state in recurrence.states}
    namer.now.update(before)
    lines: list[Version | Repeated] = []
    if recurrence.reset is not None:
        for state in recurrence.states:
            kept = call("where", recurrence.reset, 0, before[state.name])
            lines.append(namer.assign(Equation(state.name, kept)))
    lines += namer.lines(recurrence.step)
    after = tuple((s.name, namer.now[s.name]) for s in recurrence.states)
    own = tuple(
        (name, ref)
        for name, ref in namer.now.items()
        if name not in namer.states and isinstance(ref, Ref)
    )
    return Step(tuple(lines), tuple(before.items()), after, own)


@dataclass
class _Namer:
    states: dict[str, Ref]
    now: dict[str, Expr] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def version(self, name: str, axes: frozenset[str], kind: Kind) -> Ref:
        """A new version of a name."""
        self.counts[name] = self.counts.get(name, -1) + 1
        return Ref(f"{name}.{self.counts[name]}", axes, kind, Point(name, At.VERSION))

    def assign(self, equation: Equation) -> Version:
        name = equation.name
        value = with_names(equation.value, self.now)
        axes = self.states[name].dims if name in self.states else value.axes
        kind = self.states[name].tensor_kind if name in self.states else value.kind
        ref = self.version(name, axes, kind)
        self.now[name] = ref
        return Version(ref, name, value)

    def lines(self, step: tuple[Line, ...]) -> list[Version | Repeated]:
        return [
            self.assign(line) if isinstance(line, Equation) else self.repeated(line)
            for line in step
        ]

    def repeated(self, rounds: Rounds) -> Repeated:
        outside = dict(self.now)
        starts: dict[str, Ref] = {}
        for name, state in self.states.items():
            starts[name] = self.version(name, state.dims, state.tensor_kind)
            self.now[name] = starts[name]
        lines = self.lines(rounds.step)
        handed: list[Handed] = []
        own: list[tuple[Ref, Ref]] = []
        for name, now in self.now.items():
            if name in self.states:
                state = self.states[name]
                if now == starts[name]:  # no round changes it
                    self.now[name] = outside[name]
                    continue
                after = self.version(name, state.dims, state.tensor_kind)
                handed.append(Handed(outside[name], starts[name], now, after))
                self.now[name] = after
            elif now != outside.get(name):
                assert isinstance(now, Ref)
                whole = self.version(name, now.axes | {rounds.over}, now.kind)
                own.append((now, whole))
                self.now[name] = whole
        unchanged = {s: outside[n] for n, s in starts.items() if self.now[n] == outside[n]}
        kept = tuple(_with(line, {r.name: e for r, e in unchanged.items()}) for line in lines)
        return Repeated(rounds.over, kept, tuple(handed), tuple(own))


def _with(line: Version | Repeated, values: dict[str, Expr]) -> Version | Repeated:
    """A line that reads ``values`` for some names."""
    match line:
        case Version(ref, name, value):
            return Version(ref, name, with_names(value, values))
        case Repeated(over, lines, states, own):
            handed = tuple(
                Handed(with_names(h.before, values), h.start, with_names(h.end, values), h.after)
                for h in states
            )
            return Repeated(over, tuple(_with(inner, values) for inner in lines), handed, own)
