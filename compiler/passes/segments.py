"""Matrix states in segments of rows, all at once: for few heads and many rows.

Three kernels. The first runs each segment from a state of zero, and finds besides what is left of
whatever it starts from; the second goes from segment to segment, S = left * S + found; the third
runs each segment once more, from the state that it really starts from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...ir.expression import Kind, Literal, Ref, call
from ...ir.mixer import State
from ...ir.plan import Buffer, Kernel
from ...ir.tile import DType
from ..analysis.recurrence.forms import Matrix
from ..analysis.recurrence.versions import Version
from ..planning.recurrence_context import StageRows
from ..planning.workspace import LIGHT, Launch, Workspace
from ..schedules.chunk import ChunkTask, chunk
from ..schedules.loop import Carrying, LoopTask, loop
from ..tiles.evaluation import Context


@dataclass(frozen=True)
class Segments:
    """A chunk kernel's task, for as many segments as the plan is split into."""

    task: ChunkTask
    states: tuple[tuple[Matrix, Carrying], ...]
    dim: str

    @staticmethod
    def of(task: ChunkTask, work: Workspace) -> Segments | None:
        """The task in segments; None where states mix, so that a state has no single decay."""
        states = []
        for form, carrying in task.states:
            if not isinstance(form, Matrix):
                return None
            states.append((form, carrying[0]))
        dim = f"{task.over}_segments"
        work.fixed[dim] = work.splits
        return Segments(task, tuple(states), dim)

    def plan(self, rows: StageRows, context: Context, launch: Launch) -> ChunkTask:
        """Kernels that find what each segment starts from; the task of the segments themselves."""
        work = rows.work
        found = {c.name: self._declare(work, f"{c.name}_found", c.dims) for _, c in self.states}
        left = {
            c.name: self._declare(work, f"{c.name}_left", self._left(form, c))
            for form, c in self.states
        }
        starts = {c.name: self._declare(work, f"{c.name}_starts", c.dims) for _, c in self.states}
        self._find(work, context, launch, found, left)
        self._pass(rows, context, found, left, starts)
        states = tuple(
            (form, (replace(c, initial=starts[c.name], last=None),)) for form, c in self.states
        )
        return replace(self.task, states=states, segment=self.dim)

    def _left(self, form: Matrix, carrying: Carrying) -> frozenset[str]:
        """The axes of what is left of a state: those of its decay, rows aside."""
        axes = form.decay.axes - {self.task.over} | set(self.task.positions)
        return axes & carrying.dims

    def _declare(self, work: Workspace, hint: str, dims: frozenset[str]) -> Ref:
        name = work.free_name(hint)
        order = work.order(dims)
        batch = tuple(d for d in order if d in self.task.positions)
        rest = tuple(d for d in order if d not in self.task.positions)
        work.context.buffers[name] = Buffer(
            name, (*batch, self.dim, *rest), DType.FLOAT32, "temporary"
        )
        return Ref(name, dims | {self.dim}, Kind.REAL)

    def _find(
        self,
        work: Workspace,
        context: Context,
        launch: Launch,
        found: dict[str, Ref],
        left: dict[str, Ref],
    ) -> None:
        """The first kernel: what each segment writes, and what it leaves of its start."""

        def states() -> Iterator[tuple[Matrix, tuple[Carrying, ...]]]:
            for form, c in self.states:
                zero = replace(c, initial=Literal(0.0), last=found[c.name].name)
                yield form, (zero,)
                dims = left[c.name].axes - {self.dim}
                one = State(f"{c.name}_left", dims, Literal(1.0), listed=form.state.listed)
                before = Ref(f"{one.name}.in", dims, Kind.REAL)
                kept = Carrying(
                    one.name, dims, Kind.REAL, one.initial, before, before, left[c.name].name
                )
                yield replace(form, state=one, writes=()), (kept,)

        results = (*(r.name for r in found.values()), *(r.name for r in left.values()))
        task = replace(
            self.task,
            name=work.kernel_name(results[0]),
            states=tuple(states()),
            readings=(),
            own=(),
            segment=self.dim,
            about=f"{', '.join(results)}: segments of {self.task.over}, each from zero",
        )
        made = chunk(task, context, launch)
        work.kernels.append(Kernel(made, "chunk", results, "segments of rows run at once"))

    def _pass(
        self,
        rows: StageRows,
        context: Context,
        found: dict[str, Ref],
        left: dict[str, Ref],
        starts: dict[str, Ref],
    ) -> None:
        """The second kernel: from segment to segment."""
        work, task = rows.work, self.task
        lines, states, own = [], [], []
        for _, c in self.states:
            kept = call("mul", left[c.name], c.before)
            value = call("add", kept, found[c.name])
            after = Ref(f"{c.name}.next", c.dims, c.kind)
            lines.append(Version(after, c.name, value))
            states.append(replace(c, after=after))
            own.append((starts[c.name].name, c.before))
        results = tuple(r.name for r in starts.values())
        made = loop(
            LoopTask(
                work.kernel_name(results[0]),
                self.dim,
                False,
                tuple(lines),
                tuple(states),
                tuple(own),
                task.positions,
                task.tiled,
                f"{', '.join(results)}: what each segment of {task.over} starts from",
            ),
            context,
            work.with_launch(LIGHT),
        )
        last = tuple(c.last for _, c in self.states if c.last)
        work.kernels.append(Kernel(made, "loop", (*results, *last), "from segment to segment"))
