"""The kernels of a recurrence with matrix states: other states first, then chunks of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ...ir.expression import Expr, Index, Literal, Read, Ref, Size, call
from ...ir.mixer import Equation, Recurrence, Rounds, State, assignments
from ...ir.recurrence_forms import Classified, Coupled, Matrix, Reading
from ...ir.recurrence_tasks import Carrying, ChunkTask
from ...ir.rewriting import substitute, walk, with_names
from ...ir.single_assignment import after_row, before_row
from ...ir.targets import AnyTarget, CpuTarget
from ..analysis.recurrence.flatten import Flat
from .recurrence_context import RecurrenceContext, reads


def refusal(stage: Recurrence, classified: Classified, target: AnyTarget) -> str | None:
    """Why the chunk schedule can't compute a recurrence; None if it can.

    On a CPU a state that is corrected and read along both axes goes row by row, which is faster.
    """
    matrices = chunked(classified)
    if not matrices:
        return "no matrix state"
    if any(isinstance(line, Rounds) for line in stage.step):
        return "an inner loop"
    if any(form.corrected > 1 for form in matrices):
        return "several corrections in a row"
    if any(len(form.value_axes) > 1 for form in matrices):
        return "a state with more than two axes"
    forms = {state.name: form for form in matrices for state in form.states}
    for reading in classified.readings:
        form = forms[reading.state]
        across = reading.axes == form.value_axes and isinstance(form, Matrix)
        across = across and not (form.corrected and isinstance(target, CpuTarget))
        if reading.at or not (reading.axes == (form.key_axis,) or across):
            return f"{reading.state} is read over {', '.join(reading.axes)}"
    rest = _others(stage, matrices)
    if rest is None:
        return "other states read the matrices"
    if any(len(state.listed) > 1 for state in rest.states):
        return "a state of two axes that is no matrix, of which every row would be kept"
    return None


def chunked(classified: Classified) -> list[Matrix | Coupled]:
    """The components that go in chunks."""
    return [form for form in classified.components if isinstance(form, Matrix | Coupled)]


def _others(stage: Recurrence, matrices: list[Matrix | Coupled]) -> Recurrence | None:
    """The part of a recurrence that has no matrix state; None if it needs one."""
    inside = {state.name for form in matrices for state in form.states}
    states = {state.name for state in stage.states}
    needed = states - inside
    lines = [line for line, _ in assignments(stage.step)]
    own = {line.name for line in lines} - states
    while True:
        found = {
            node.name
            for line in lines
            if line.name in needed
            for node in walk(line.value)
            if isinstance(node, Ref) and node.name in own | states
        }
        if found <= needed:
            break
        needed |= found
    if needed & inside:
        return None
    kept = tuple(line for line in lines if line.name in needed)
    return replace(
        stage, states=tuple(s for s in stage.states if s.name in needed), step=kept, texts=()
    )


@dataclass
class ChunkPlan:
    """A recurrence whose matrix states go chunk by chunk."""

    context: RecurrenceContext
    stage: Recurrence  # names inlined
    classified: Classified
    plan_rest: Callable[[RecurrenceContext, Recurrence], None]
    flat: Flat | None = None  # where ``stage`` is another with its rounds laid out in time
    known: dict[str, Expr] = field(default_factory=dict)  # rows of states that are no matrices

    def run(self) -> None:
        """Plan it, and make its results known to later stages."""
        matrices = chunked(self.classified)
        rest = _others(self.stage, matrices)
        assert rest is not None
        if rest.states:
            self._plan_others(rest)
        self._name_own()
        states = [tuple(self.context.carrying(s) for s in form.states) for form in matrices]
        by_row = [r.ref.name for r in self.classified.readings]
        by_row += [state.before.name for group in states for state in group]
        forms = tuple(self._prepared(form, by_row) for form in matrices)
        readings = tuple(
            replace(r, query=self._known(r.query, by_row)) for r in self.classified.readings
        )
        own = tuple(
            (self.context.declare(name, value.kind), self._known(value, by_row), self._where(name))
            for name, value in self.classified.own
            if name in self.context.used and reads(value, frozenset(by_row))
        )
        if own or any(state.last for group in states for state in group):
            self._kernel(tuple(zip(forms, states, strict=True)), readings, own)

    def _where(self, name: str) -> Expr | None:
        """In which rows of a flat axis an own name is one of its rows; None: in all."""
        if self.flat is None:
            return None
        place = next(place for own, _, place in self.flat.rows if own == name)
        (over, row), (rounds, _) = self.flat.parts
        if rounds in place.axes:
            return None
        row = substitute(place, {Index(over): row})
        return call("eq", Index(self.flat.axis), row)

    def _plan_others(self, rest: Recurrence) -> None:
        """States that are no matrices, with their rows kept."""
        builder = self.context.builder
        names = {state.name: builder.free_name(f"{state.name}_rows") for state in rest.states}
        lines = tuple(Equation(names[state.name], state.ref) for state in rest.states)
        stage = replace(rest, step=(*rest.step, *lines))
        used = frozenset(names.values()) | {
            s.name for s in rest.states if s.name in self.context.used
        }
        self.plan_rest(
            RecurrenceContext(builder, stage, used, wide=frozenset(names.values())), stage
        )
        for state in rest.states:
            ref = Ref(names[state.name], state.dims | {stage.over}, state.kind)
            self.known[after_row(state).name] = ref
            self.known[before_row(state).name] = self._before(ref, state)

    def _before(self, rows: Ref, state: State) -> Expr:
        """A state before each row: the row above, or the initial value."""
        over = self.stage.over
        above = call("add", Index(over), 1 if self.stage.reverse else -1)
        value = Read(rows, ((over, above),))
        if isinstance(state.initial, Literal) and state.initial.value == 0:
            return value
        first: Expr = Literal(0)
        if self.stage.reverse:
            first = call("sub", Size(over), 1)
        return call("where", call("eq", Index(over), first), state.initial, value)

    def _name_own(self) -> None:
        """Names of the step that no matrix goes into are inlined where they are read."""
        readings = frozenset(reading.ref.name for reading in self.classified.readings)
        for name, value in self.classified.own:
            if not reads(value, readings):
                written = with_names(value, self.known)
                self.context.builder.names[name] = self.context.builder.named(name, written)

    def _known(self, expr: Expr, by_row: list[str]) -> Expr:
        return self.context.materialised(with_names(expr, self.known), by_row)

    def _prepared(self, form: Matrix | Coupled, by_row: list[str]) -> Matrix | Coupled:
        def known(expr: Expr) -> Expr:
            return self._known(expr, by_row)

        if isinstance(form, Matrix):
            return replace(
                form,
                decay=known(form.decay),
                log_decay=None if form.log_decay is None else known(form.log_decay),
                corrections=tuple((known(u), known(w)) for u, w in form.corrections),
                writes=tuple((known(k), known(v)) for k, v in form.writes),
            )
        return replace(
            form,
            decay=tuple(tuple(e and known(e) for e in row) for row in form.decay),
            corrections=tuple(
                tuple((known(u), known(w), state) for u, w, state in of) for of in form.corrections
            ),
            writes=tuple(tuple((known(k), known(v)) for k, v in of) for of in form.writes),
        )

    def _kernel(
        self,
        states: tuple[tuple[Matrix | Coupled, tuple[Carrying, ...]], ...],
        readings: tuple[Reading, ...],
        own: tuple[tuple[str, Expr, Expr | None], ...],
    ) -> None:
        builder, over = self.context.builder, self.stage.over
        results = tuple(n for n, _, _ in own) + tuple(
            c.last for _, group in states for c in group if c.last
        )
        whole = {axis for r in readings for axis in r.axes}
        whole |= {form.key_axis for form, _ in states if form.corrected}
        parts = () if self.flat is None else self.flat.parts
        task = ChunkTask(
            builder.kernel_name(results[0]),
            over,
            self.stage.reverse,
            states,
            readings,
            own,
            (),
            (),
            parts,
            None if self.flat is None else self.flat.size,
            about=f"{', '.join(results)}: in chunks along {over}",
            reason="the recurrence itself",
        )
        builder.tasks.append(self.context.placed(task, frozenset(whole)))
