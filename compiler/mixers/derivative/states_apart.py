"""A recurrence as several, each with an adjoint of its own kind; no meaning changes.

A matrix state's adjoint needs no state of any row, that of another state does. So states that
matrices depend on, a stabiliser or a running total, go in a recurrence before; what the matrices
read of them are rows:

    m = max(f + m, i);  C = exp(f + m_before - m) * C + ...   -->   m, m_before [T];  then C

A matrix per group of heads, read by each head of the group, becomes one per head, since each head
has a cotangent of its own: S[G] read at G = h // (H // G) --> S_by_head[H].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ....ir.expression import Expr, Index, Read, Reduce, Ref, Size, call
from ....ir.mixer import Equation, Map, Mixer, Recurrence, Rounds, Stage, State
from ....ir.names import names_in
from ....ir.recurrence_forms import Matrix
from ....ir.rewriting import rebuild, walk, with_names
from ....ir.roles import group_of
from ....ir.stages import changed, names_taken, unused_name, values
from ...analysis.recurrence.classify import classify


def states_apart(mixer: Mixer) -> Mixer:
    """The mixer with the matrix states of each recurrence by themselves, one for each head."""
    taken = names_taken(mixer)
    stages: list[Stage] = []
    for stage in mixer.stages:
        if not isinstance(stage, Recurrence):
            stages.append(stage)
            continue
        for part in _parts(stage, taken):
            stages += _by_head(part, mixer, taken)
    return replace(mixer, stages=tuple(stages))


def _parts(stage: Recurrence, taken: set[str]) -> list[Recurrence]:
    """The stage; or the part without its matrix states, and the rest."""
    names = [line.name for line in stage.step if isinstance(line, Equation)]
    if len({*names}) < len(stage.step) or {s.name for s in stage.states} - {*names}:
        return [stage]  # an inner loop, or a name of several meanings
    matrices = {f.state.name for f in classify(stage).components if isinstance(f, Matrix)}
    before = _needed(stage, {s.name for s in stage.states} - matrices)
    if not matrices or not before or before & matrices:
        return [stage]
    return list(_cut(stage, before, taken))


def _needed(stage: Recurrence, names: set[str]) -> set[str]:
    """The names with all names of the step that their lines read."""
    lines = {line.name: line.value for line in stage.step if isinstance(line, Equation)}
    pending = [*names]
    while pending:
        for name in names_in(lines[pending.pop()]) & lines.keys() - names:
            names.add(name)
            pending.append(name)
    return names


def _cut(stage: Recurrence, before: set[str], taken: set[str]) -> Iterator[Recurrence]:
    """The lines of ``before`` as a recurrence, and the rest, which reads rows of it."""
    over = frozenset({stage.over})
    states = {s.name: s for s in stage.states}
    rows = {ref.name: ref for ref in stage.own if ref.name in before}
    early: dict[str, Ref] = {}  # what a name is until its line has been passed
    late = dict(rows)
    for name in sorted(before & states.keys()):
        for point, found in (("before", early), ("after", late)):
            unused = unused_name(f"{name}_{point}", taken)
            found[name] = Ref(unused, states[name].dims | over, states[name].kind)
    now: dict[str, Expr] = dict(early)
    others: list[Equation] = []
    for line in _equations(stage):
        if line.name in before:
            now[line.name] = late[line.name]
        else:
            others.append(replace(line, value=with_names(line.value, now)))
    lines = [
        *(Equation(ref.name, states[name].ref) for name, ref in early.items()),
        *(line for line in _equations(stage) if line.name in before),
        *(Equation(late[name].name, s.ref) for name, s in states.items() if name in before),
    ]
    read = names_in(*(line.value for line in others)) | before
    used = [line for line in lines if line.name in read]
    own = tuple(s for s in stage.states if s.name in before)
    rest = tuple(s for s in stage.states if s.name not in before)
    yield replace(stage, states=own, step=tuple(used), texts=())
    yield replace(stage, states=rest, step=tuple(others), texts=())


def _equations(stage: Recurrence) -> Iterator[Equation]:
    return (line for line in stage.step if isinstance(line, Equation))


# ------------------------------------------------------------------------------------ by head


def _by_head(stage: Recurrence, mixer: Mixer, taken: set[str]) -> list[Stage]:
    """The stage; or with its states for each head where heads of a group share them."""
    if any(isinstance(line, Rounds) for line in stage.step):
        return [stage]
    for group, head in mixer.heads:
        if any(group in s.dims and head not in s.dims for s in stage.states):
            rows, carried = _without_rows(stage)
            spread = _Spread(carried, group, head, taken)
            if spread.is_read_by_head() and not spread.mixes_groups():
                return [*rows, *spread.run()]
    return [stage]


def _without_rows(stage: Recurrence) -> tuple[list[Map], Recurrence]:
    """The lines of the step that depend on no state, as a map before it, and the rest."""
    carried = {state.name for state in stage.states}
    rows: list[Equation] = []
    step: list[Equation] = []
    for line in _equations(stage):
        free = line.name not in carried and not names_in(line.value) & carried
        if free and stage.over in line.value.axes:
            rows.append(line)
        else:
            carried.add(line.name)
            step.append(line)
    return [Map(tuple(rows))] if rows else [], replace(stage, step=tuple(step), texts=())


@dataclass
class _Spread:
    """A recurrence whose states have the axis ``group`` and are read for each position of
    ``head``."""

    stage: Recurrence
    group: str
    head: str
    taken: set[str]

    def __post_init__(self) -> None:
        ratio = call("floordiv", Size(self.head), Size(self.group))
        self.place = group_of(self.group, self.head)
        self.first = call("mul", Index(self.group), ratio)
        made = (*(s.ref for s in self.stage.states), *self.stage.own)
        self.moved: Mapping[str, Ref] = {
            ref.name: replace(
                ref,
                name=unused_name(f"{ref.name}_by_head", self.taken),
                dims=ref.dims - {self.group} | {self.head},
            )
            for ref in made
            if self.group in ref.axes
        }

    def is_read_by_head(self) -> bool:
        """Whether a line reads what depends on a state for each head."""
        return any(
            isinstance(node, Read) and self._spreads(node)
            for _, value in values(self.stage)
            for node in walk(value)
        )

    def mixes_groups(self) -> bool:
        """Whether something sees several groups, or heads, at once."""
        own = {self.group, self.head}
        for _, value in values(self.stage):
            for node in walk(value):
                match node:
                    case Reduce(over=over, group=group):
                        if own & {*over, *(dim for dim, _ in group)}:
                            return True
                    case Read(at=at):
                        if any(d in own for d, _ in at) and not self._by_head_only(node):
                            return True
        return False

    def _by_head_only(self, read: Read) -> bool:
        return all(e == self.place for d, e in read.at if d == self.group) and not any(
            d == self.head for d, _ in read.at
        )

    def _spreads(self, read: Read) -> bool:
        return (self.group, self.place) in read.at and bool(names_in(read.x) & self.moved.keys())

    def run(self) -> list[Stage]:
        stage = changed(self.stage, self._moved)
        assert isinstance(stage, Recurrence)
        states = tuple(self._state(s) for s in stage.states)
        step = tuple(replace(line, name=self._renamed(line.name)) for line in _equations(stage))
        back = tuple(
            Equation(name, Read(ref, ((self.head, self.first),)))
            for name, ref in self._results().items()
        )
        return [replace(stage, states=states, step=step, texts=()), Map(back)]

    def _results(self) -> dict[str, Ref]:
        """The results that have a value for each head, by the names that they had."""
        own = {ref.name for ref in self.stage.own}
        over = frozenset({self.stage.over})
        return {
            name: replace(ref, dims=ref.dims | over) if name in own else ref
            for name, ref in self.moved.items()
        }

    def _renamed(self, name: str) -> str:
        return self.moved[name].name if name in self.moved else name

    def _state(self, state: State) -> State:
        if state.name not in self.moved:
            return state
        ref = self.moved[state.name]
        listed = tuple(self.head if d == self.group else d for d in state.listed)
        return replace(state, name=ref.name, dims=ref.dims, listed=listed)

    def _moved(self, expr: Expr) -> Expr:
        """The expression for each head, where it was for each group."""
        match expr:
            case Index(self.group):
                return self.place
            case Ref(name) if name in self.moved:
                return self.moved[name]
            case Ref() if self.group in expr.axes:
                return Read(expr, ((self.group, self.place),))
            case Read(x, at) if (self.group, self.place) in at:
                rest = tuple((d, self._moved(e)) for d, e in at if d != self.group)
                inner = self._moved(x)
                return replace(expr, x=inner, at=rest) if rest else inner
            case _:
                return rebuild(expr, self._moved)


__all__ = ["states_apart"]
