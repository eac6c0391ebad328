"""Recurrences in segments of rows, all at once: for few heads, or channels, and many rows.

    one task --> find, pass on, run

Three tasks. The first runs each segment from a state of zero, and finds besides what is left of
whatever it starts from; the second goes from segment to segment, S = left * S + found; the third
runs each segment once more, from the state that it really starts from. Matrix states that mix with
each other have no single decay, and corrections make what is left of a state a matrix: these stay.
So do scans one of whose states is told by another's rows, which no segment knows before the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ...ir.expression import Expr, Kind, Literal, Ref, call
from ...ir.mixer import State
from ...ir.names import names_in
from ...ir.plan import Plan
from ...ir.recurrence_forms import Affine, Matrix
from ...ir.recurrence_tasks import Carrying, ChunkTask, ScanTask
from ...ir.reductions import NEUTRAL
from ...ir.single_assignment import before_row
from ...ir.targets import Target
from ...ir.task import Task
from .segments import Segments


def segment_rows(plan: Plan) -> Plan:
    """Every chunk task, and on a GPU every scan, that can be in as many segments as the plan has
    shares."""
    if plan.shares < 2:
        return plan
    tasks: list[Task] = []
    for task in plan.tasks:
        segments = _segments(plan, task)
        if segments is None:
            tasks.append(task)
        else:
            tasks += segments.tasks()
            plan = segments.declared()
    return replace(plan, tasks=tuple(tasks))


def _segments(plan: Plan, task: Task) -> Segments | None:
    """The task in segments; None where it can't be."""
    match task:
        case ScanTask() if isinstance(plan.target, Target) and _is_apart(plan, task):
            return _OfVectors(plan, task)
        case ChunkTask(size=None) if not task.corrected:
            states = [(form, c[0]) for form, c in task.states if isinstance(form, Matrix)]
            whole = len(states) == len(task.states)
            return _OfMatrices(plan, task, states=tuple(states)) if whole else None
    return None


def _is_apart(plan: Plan, task: ScanTask) -> bool:
    """Whether all that rows have and read is vectors, none of which is told by another's rows."""
    groups = {group for group, _ in plan.mixer.heads}
    axes = task.read_axes.union(*(c.dims for c in task.states)) - groups
    vectors = axes - {*task.positions, task.over} == {*task.tiled}
    told = (x for form in task.forms for x in form.expressions)
    return vectors and bool(task.tiled) and not any(names_in(x) & task.local for x in told)


@dataclass
class _OfMatrices(Segments):
    """A chunk task in segments."""

    task: ChunkTask
    states: tuple[tuple[Matrix, Carrying], ...] = field(default=())

    def tasks(self) -> tuple[Task, ...]:
        """Tasks that find what each segment starts from; then that of the segments themselves."""
        found = {c.name: self.declare(f"{c.name}_found", c.dims) for _, c in self.states}
        left = {c.name: self.declare(f"{c.name}_left", self._left(f, c)) for f, c in self.states}
        starts = {c.name: self.declare(f"{c.name}_starts", c.dims) for _, c in self.states}
        states = tuple(
            (form, (replace(c, initial=starts[c.name], last=None),)) for form, c in self.states
        )
        run = replace(self.task, states=states, segment=self.dim)
        after = {
            c.name: call("add", call("mul", left[c.name], c.before), found[c.name])
            for _, c in self.states
        }
        return self._find(found, left), self.pass_on(self.task.carrying, after, starts), run

    def _left(self, form: Matrix, carrying: Carrying) -> frozenset[str]:
        """The axes of what is left of a state: those of its decay, rows aside."""
        axes = form.decay.axes - {self.task.over} | set(self.task.positions)
        return axes & carrying.dims

    def _find(self, found: dict[str, Ref], left: dict[str, Ref]) -> ChunkTask:
        """What each segment writes, and what it leaves of its start."""

        def states() -> Iterator[tuple[Matrix, tuple[Carrying, ...]]]:
            for form, c in self.states:
                zero = replace(c, initial=Literal(0.0), last=found[c.name].name)
                yield form, (zero,)
                dims = left[c.name].axes - {self.dim}
                one = State(f"{c.name}_left", dims, Literal(1.0), listed=form.state.listed)
                before = before_row(one)
                kept = Carrying(
                    one.name, dims, Kind.REAL, one.initial, before, before, left[c.name].name
                )
                yield replace(form, state=one, writes=()), (kept,)

        results = (*(r.name for r in found.values()), *(r.name for r in left.values()))
        return replace(
            self.task,
            name=f"{self.plan.mixer.name}_{results[0]}",
            states=tuple(states()),
            readings=(),
            own=(),
            segment=self.dim,
            about=f"{', '.join(results)}: segments of {self.task.over}, each from zero",
            reason="segments of rows run at once",
        )


@dataclass
class _OfVectors(Segments):
    """A scan in segments."""

    task: ScanTask

    def tasks(self) -> tuple[Task, ...]:
        """Tasks that find what each segment starts from; then that of the segments themselves."""
        states = {c.name: c for c in self.task.states}
        found = {name: self.declare(f"{name}_found", c.dims) for name, c in states.items()}
        left = {
            (form.states[i].name, form.states[j].name): self.declare(
                f"{form.states[i].name}_left", form.states[i].dims
            )
            for form in self.task.forms
            for i, j in form.places
        }
        starts = {name: self.declare(f"{name}_starts", c.dims) for name, c in states.items()}
        after: dict[str, Expr] = {}
        for form in self.task.forms:
            for one in form.states:
                value: Expr = found[one.name]
                for other in form.states:
                    if kept := left.get((one.name, other.name)):
                        value = call(
                            form.plus, call(form.times, kept, states[other.name].before), value
                        )
                after[one.name] = value
        run = replace(
            self.task,
            states=tuple(replace(c, initial=starts[n], last=None) for n, c in states.items()),
            segment=self.dim,
        )
        return self._find(found, left), self.pass_on(self.task.states, after, starts), run

    def _find(self, found: dict[str, Ref], left: dict[tuple[str, str], Ref]) -> ScanTask:
        """What each segment makes of a state of zero, and of each of its states alone without
        anything more: the columns of what it does to them."""
        forms, states = list[Affine](), list[Carrying]()
        known = {c.name: c for c in self.task.states}
        for form in self.task.forms:
            zero, one = Literal(NEUTRAL[form.plus]), Literal(NEUTRAL[form.times])
            forms.append(form)
            for state in form.states:
                into = found[state.name].name
                states.append(replace(known[state.name], initial=zero, last=into))
            for column in form.states:
                group = tuple(
                    State(f"{s.name}_of_{column.name}", s.dims, zero, listed=s.listed)
                    for s in form.states
                )
                forms.append(replace(form, states=group, offsets=(None,) * len(group)))
                for state, of in zip(group, form.states, strict=True):
                    before, kept = before_row(state), left.get((of.name, column.name))
                    start = one if of is column else zero
                    last = None if kept is None else kept.name
                    states.append(
                        Carrying(state.name, state.dims, Kind.REAL, start, before, before, last)
                    )
        results = (*(r.name for r in found.values()), *(r.name for r in left.values()))
        return replace(
            self.task,
            name=f"{self.plan.mixer.name}_{results[0]}",
            forms=tuple(forms),
            states=tuple(states),
            own=(),
            segment=self.dim,
            about=f"{', '.join(results)}: segments of {self.task.over}, each from zero",
            reason="segments of rows run at once",
        )
