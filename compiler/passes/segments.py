"""A recurrence in segments of rows: the dim that counts them, its buffers, what goes between."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...ir.expression import Expr, Kind, Ref
from ...ir.names import free_name
from ...ir.node import At, Point
from ...ir.plan import Buffer, Plan
from ...ir.recurrence_tasks import Carrying, ChunkTask, LoopTask, ScanTask
from ...ir.roles import DimRoles, dim_roles
from ...ir.single_assignment import Version
from ...ir.task import Task
from ...ir.tile import DType


@dataclass
class Segments(ABC):
    """A task, for as many segments as the plan has shares."""

    plan: Plan
    task: ChunkTask | ScanTask
    buffers: list[Buffer] = field(default_factory=list)

    @abstractmethod
    def tasks(self) -> tuple[Task, ...]:
        """Tasks that find what each segment starts from; then that of the segments themselves."""

    @property
    def dim(self) -> str:
        """The dim that counts segments; of this task alone, whose blocks they are made of."""
        return free_name(f"{self.task.over}_segments", {dim for dim, _ in self.plan.sizes})

    @property
    def roles(self) -> DimRoles:
        """What the dims of the mixer are."""
        return dim_roles(self.plan.mixer, dict(self.plan.sizes))

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

    def declare(self, hint: str, dims: frozenset[str]) -> Ref:
        """A buffer with something for each segment."""
        taken = {b.name for b in (*self.plan.buffers, *self.buffers)}
        name = free_name(hint, taken | {o.name for o in self.plan.mixer.outputs})
        order = self.roles.order(dims)
        batch = tuple(d for d in order if d in self.task.positions)
        rest = tuple(d for d in order if d not in self.task.positions)
        shape = (*batch, self.dim, *rest)
        self.buffers.append(Buffer(name, shape, DType.FLOAT32, "temporary"))
        return Ref(name, dims | {self.dim}, Kind.REAL)

    def pass_on(
        self, states: tuple[Carrying, ...], after: Mapping[str, Expr], starts: Mapping[str, Ref]
    ) -> LoopTask:
        """From segment to segment: what each state is after one, told by what it is before it."""
        task = self.task
        lines, carried, own = [], [], []
        for state in states:
            made = Ref(f"{state.name}.next", state.dims, state.kind, Point(state.name, At.VERSION))
            lines.append(Version(made, state.name, after[state.name]))
            carried.append(replace(state, after=made))
            own.append((starts[state.name].name, state.before))
        results = tuple(r.name for r in starts.values())
        return LoopTask(
            f"{self.plan.mixer.name}_{results[0]}",
            self.dim,
            False,
            tuple(lines),
            tuple(carried),
            tuple(own),
            task.positions,
            task.tiled,
            f"{', '.join(results)}: what each segment of {task.over} starts from",
            "from segment to segment",
        )
