"""Matrix states in segments of rows, all at once: for few heads and many rows.

    one chunk task --> find, pass on, run

Three tasks. The first runs each segment from a state of zero, and finds besides what is left of
whatever it starts from; the second goes from segment to segment, S = left * S + found; the third
runs each segment once more, from the state that it really starts from. States that mix with each
other have no single decay, and corrections make what is left of a state a matrix: these stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ...ir.expression import Kind, Literal, Ref, call
from ...ir.mixer import State
from ...ir.names import free_name
from ...ir.node import At, Point
from ...ir.plan import Buffer, Plan
from ...ir.recurrence_forms import Matrix
from ...ir.recurrence_tasks import Carrying, ChunkTask, LoopTask
from ...ir.roles import DimRoles, dim_roles
from ...ir.single_assignment import Version, before_row
from ...ir.task import Task
from ...ir.tile import DType


def segment_rows(plan: Plan) -> Plan:
    """Every chunk task that can be in as many segments as long axes have shares."""
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


def _segments(plan: Plan, task: Task) -> _Segments | None:
    """The task in segments; None where it can't be."""
    if not isinstance(task, ChunkTask) or task.corrected or task.size is not None:
        return None
    states = []
    for form, carrying in task.states:
        if not isinstance(form, Matrix):
            return None
        states.append((form, carrying[0]))
    return _Segments(plan, task, tuple(states), dim_roles(plan.mixer, dict(plan.sizes)))


@dataclass
class _Segments:
    """A chunk task, for as many segments as the plan has shares."""

    plan: Plan
    task: ChunkTask
    states: tuple[tuple[Matrix, Carrying], ...]
    roles: DimRoles
    buffers: list[Buffer] = field(default_factory=list)

    @property
    def dim(self) -> str:
        """The dim that counts segments."""
        return f"{self.task.over}_segments"

    def declared(self) -> Plan:
        """The plan with the buffers of the new tasks, and what was found."""
        found = f"{self.plan.shares} segments of rows at a time"
        sizes = tuple(sorted({**dict(self.plan.sizes), self.dim: self.plan.shares}.items()))
        return replace(
            self.plan,
            buffers=(*self.plan.buffers, *self.buffers),
            sizes=sizes,
            findings=(*self.plan.findings, found),
        )

    def tasks(self) -> tuple[Task, ...]:
        """Tasks that find what each segment starts from; then that of the segments themselves."""
        found = {c.name: self._declare(f"{c.name}_found", c.dims) for _, c in self.states}
        left = {c.name: self._declare(f"{c.name}_left", self._left(f, c)) for f, c in self.states}
        starts = {c.name: self._declare(f"{c.name}_starts", c.dims) for _, c in self.states}
        states = tuple(
            (form, (replace(c, initial=starts[c.name], last=None),)) for form, c in self.states
        )
        run = replace(self.task, states=states, segment=self.dim)
        return self._find(found, left), self._pass_on(found, left, starts), run

    def _left(self, form: Matrix, carrying: Carrying) -> frozenset[str]:
        """The axes of what is left of a state: those of its decay, rows aside."""
        axes = form.decay.axes - {self.task.over} | set(self.task.positions)
        return axes & carrying.dims

    def _declare(self, hint: str, dims: frozenset[str]) -> Ref:
        taken = {b.name for b in (*self.plan.buffers, *self.buffers)}
        name = free_name(hint, taken | {o.name for o in self.plan.mixer.outputs})
        order = self.roles.order(dims)
        batch = tuple(d for d in order if d in self.task.positions)
        rest = tuple(d for d in order if d not in self.task.positions)
        shape = (*batch, self.dim, *rest)
        self.buffers.append(Buffer(name, shape, DType.FLOAT32, "temporary"))
        return Ref(name, dims | {self.dim}, Kind.REAL)

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

    def _pass_on(
        self, found: dict[str, Ref], left: dict[str, Ref], starts: dict[str, Ref]
    ) -> LoopTask:
        """From segment to segment."""
        task = self.task
        lines, states, own = [], [], []
        for _, c in self.states:
            kept = call("mul", left[c.name], c.before)
            value = call("add", kept, found[c.name])
            after = Ref(f"{c.name}.next", c.dims, c.kind, Point(c.name, At.VERSION))
            lines.append(Version(after, c.name, value))
            states.append(replace(c, after=after))
            own.append((starts[c.name].name, c.before))
        results = tuple(r.name for r in starts.values())
        return LoopTask(
            f"{self.plan.mixer.name}_{results[0]}",
            self.dim,
            False,
            tuple(lines),
            tuple(states),
            tuple(own),
            task.positions,
            task.tiled,
            f"{', '.join(results)}: what each segment of {task.over} starts from",
            "from segment to segment",
        )
