"""A recurrence's components, each by what the algebra of the step shows.

The states are classified in the order of their dependence, one strongly connected component at a
time. A matrix state that is used otherwise than by contractions can't stay in chunks: it is put
together with the component that uses it, where both are coupled by scalars, else it is taken for
what it is without the matrix structure, and the search starts again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ....ir.expression import Expr, Literal, Reduce, Ref
from ....ir.mixer import Recurrence, State
from ....ir.recurrence_forms import Classified, Coupled, Form, Loop, Matrix
from ....ir.rewriting import walk
from ....ir.single_assignment import after_row, before_row
from .coupled import coupled
from .dense import dense
from .dependence import Dependence
from .evaluation import Evaluation, spread
from .kinds import loop_kind
from .matrix import matrix, own_axes
from .readings import Readings, WholeError
from .semiring import linear, tropical
from .superposition import NotLinearError, Superposition


def classify(recurrence: Recurrence, needed: Collection[str] | None = None) -> Classified:
    """What each component of a recurrence is, and the rows in terms of it.

    ``needed`` are the step's own names that others read (None: all of them); only these are in
    ``own``, and only for their sake is a state kept row by row. Names that an inner loop makes are
    not in ``own``, nor, where there are only loops, what is too long to write out: the loop makes
    them.
    """
    dependence = Dependence.made(recurrence)
    search = _Search(recurrence, dependence, needed)
    while True:
        try:
            return search.attempt()
        except WholeError as error:
            search.learn(error)
        except NotLinearError as error:  # in a row
            return _one_loop(recurrence, error.term, error.reason)
        except RecursionError:
            return _one_loop(recurrence, Literal(0), "a step too deep to look into")


def _one_loop(recurrence: Recurrence, term: Expr, reason: str) -> Classified:
    return Classified((Loop(recurrence.states, "dots", term, reason),), (), ())


@dataclass
class _Search:
    """``whole`` gives the states that are not to be matrices, with the term; ``joined`` the pairs
    of components that are tried as one; ``at`` the component at hand."""

    recurrence: Recurrence
    dependence: Dependence
    needed: Collection[str] | None
    whole: dict[str, Expr] = field(default_factory=dict)
    joined: list[frozenset[str]] = field(default_factory=list)
    refused: set[frozenset[str]] = field(default_factory=set)
    at: tuple[State, ...] = ()

    def learn(self, error: WholeError) -> None:
        """Rule out what an attempt has shown to be wrong."""
        pair = frozenset({error.state, *(s.name for s in self.at)})
        if self.at and pair not in self.refused and pair not in self.joined:
            self.joined.append(pair)
        else:
            self.whole[error.state] = error.term

    def attempt(self) -> Classified:
        """One pass over the components and rows."""
        from .components import components

        attempt = _Attempt(self)
        for names in components(self.recurrence, self.dependence, self.joined):
            self.at = tuple(s for s in self.recurrence.states if s.name in names)
            form = attempt.form(self.at)
            if not isinstance(form, Coupled) and any(p <= set(names) for p in self.joined):
                self._split(names)
                return self.attempt()
            attempt.add(form)
        self.at = ()
        own = attempt.rows()
        return Classified(tuple(attempt.forms), tuple(attempt.readings.found.values()), own)

    def _split(self, names: Collection[str]) -> None:
        apart = [pair for pair in self.joined if pair <= set(names)]
        self.joined = [pair for pair in self.joined if pair not in apart]
        self.refused.update(apart)


@dataclass
class _Attempt:
    search: _Search
    forms: list[Form] = field(default_factory=list)
    known: dict[str, Expr] = field(default_factory=dict)
    unknown: dict[str, Ref] = field(default_factory=dict)
    finals: dict[Expr, Expr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.readings = Readings(self.search.recurrence.over)

    def evaluation(self, states: Sequence[State]) -> Evaluation:
        """The step's values with ``states`` unknown."""
        current = {before_row(s).name: before_row(s) for s in states}
        return Evaluation(
            self.search.dependence,
            {**self.unknown, **current},
            frozenset(current),
            self.known,
            self.readings.settle,
            self.finals,
        )

    def form(self, states: tuple[State, ...]) -> Form:
        """The form of a component."""
        evaluation = self.evaluation(states)
        after = dict(self.search.dependence.step.after)
        over = self.search.recurrence.over
        try:
            values = tuple(_own(evaluation.value(after[s.name]), evaluation) for s in states)
        except NotLinearError as error:
            found = tropical(states, [after[s.name] for s in states], evaluation, over)
            return found or self._loop(states, error)
        try:
            return self._linear(states, values)
        except NotLinearError as error:
            return self._loop(states, error)

    def _linear(self, states: tuple[State, ...], values: tuple[Superposition, ...]) -> Form:
        over = self.search.recurrence.over
        banned = next(
            (self.search.whole[s.name] for s in states if s.name in self.search.whole), None
        )
        elementwise = not any(t.over or t.moved for v in values for t in v.terms)
        found: Form | None = None
        if banned is None:
            found = self._matrix(states, values)
        if found is None and elementwise:
            found = linear(states, values, over)
        if found is None and len(states) == 1:
            found = dense(states[0], values[0], over)
        if found is not None:
            return found
        if banned is not None:
            raise NotLinearError(banned, "the whole state is used")
        blame = next(t for v in values for t in v.terms if t.over or t.moved)
        raise NotLinearError(blame.value, "no correction of rank one")

    def _matrix(
        self, states: tuple[State, ...], values: tuple[Superposition, ...]
    ) -> Matrix | Coupled | None:
        if len(states) > 1:
            return coupled(states, values, self._hints(states))
        (state,), (value,) = states, values
        if any(t.moved or len(t.over) > 1 for t in value.terms):
            return None
        found = matrix(state, value, self._hints(states))
        if found is None or found.value_axes or found.corrections:
            return found
        rides = any(isinstance(form, Matrix) and _alike(form, found) for form in self.forms)
        return found if rides and found.key_axis in self._hints(states) else None

    def _hints(self, states: tuple[State, ...]) -> tuple[str, ...]:
        """The axes along which reads contract the states, the most frequent first."""
        names = frozenset(before_row(s).name for s in states)
        own = set(own_axes(states[0]))
        counts: Counter[str] = Counter()
        for value in self.search.dependence.values.values():
            for node in walk(value):
                if isinstance(node, Reduce) and self.search.dependence.of(node) & names:
                    counts.update(axis for axis in node.over if axis in own)
        return tuple(axis for axis, _ in counts.most_common())

    def _loop(self, states: tuple[State, ...], error: NotLinearError) -> Loop:
        kind = loop_kind(states, self.search.dependence, self.search.recurrence.over)
        return Loop(states, kind, error.term, error.reason)

    def add(self, form: Form) -> None:
        """Later components see what this one gives."""
        self.forms.append(form)
        over = self.search.recurrence.over
        for state in form.states:
            finals = [n for n, s in self.search.dependence.finals.items() if s == state.name]
            points = {before_row: [before_row(state).name], after_row: finals}
            for at, names in points.items():
                if isinstance(form, Matrix | Coupled):
                    self.unknown |= dict.fromkeys(names, at(state))
                else:
                    self.known |= dict.fromkeys(names, at(state, state.dims | {over}))
            if isinstance(form, Matrix | Coupled):
                self.readings.own[state.name] = (form.key_axis, *form.value_axes)
            else:
                self._remember(state, form)

    def _remember(self, state: State, form: Form) -> None:
        """A value that the step gives a state, however it is spelled, is the state's."""
        if isinstance(form, Loop):
            return
        after = dict(self.search.dependence.step.after)[state.name]
        value = self._before_add(state, after)
        if value is not None and value.children:
            row = after_row(state, state.dims | {self.search.recurrence.over})
            self.finals.setdefault(value, row)

    def _before_add(self, state: State, after: Expr) -> Expr | None:
        known = {k: v for k, v in self.known.items() if not _is(v, after_row(state).name)}
        evaluation = self.evaluation(())
        evaluation.known = known
        try:
            return evaluation.settled(evaluation.value(after), after)
        except (NotLinearError, WholeError):
            return None

    def rows(self) -> tuple[tuple[str, Expr], ...]:
        """The step's own names, each in terms of the components."""
        evaluation = self.evaluation(())
        rows: list[tuple[str, Expr]] = []
        for name, ref in self.search.dependence.step.own:
            if self.search.needed is not None and name not in self.search.needed:
                continue
            try:
                value = evaluation.settled(evaluation.value(ref), ref)
                rows.append((name, spread(value, ref)))
            except NotLinearError as error:
                loops = all(isinstance(form, Loop) for form in self.forms)
                if not loops and not isinstance(error.term, Ref):  # no inner loop
                    raise
        return tuple(rows)


def _alike(one: Matrix, other: Matrix) -> bool:
    """Whether two states decay in the same way: a normaliser rides along with its matrix."""
    kinds = [
        (form.key_axis, form.key_axis in form.decay.axes, form.corrections) for form in (one, other)
    ]
    return kinds[0] == kinds[1]


def _is(value: Expr, name: str) -> bool:
    return isinstance(value, Ref) and value.name == name


def _own(value: Superposition, evaluation: Evaluation) -> Superposition:
    """A new value in the component's own states; readings of others are in its free part."""
    own = tuple(t for t in value.terms if t.state.name in evaluation.current)
    others = tuple(t for t in value.terms if t.state.name not in evaluation.current)
    free = evaluation.settled(Superposition(others, value.free), value.free)
    return Superposition(own, free)
