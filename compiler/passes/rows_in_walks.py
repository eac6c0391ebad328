"""What tasks make of a walk's rows, row by row, is made in the walk: on CPUs.

    rows of a recurrence to memory, a task that reads them again --> the walk makes it all

A walk has its row in the first cache. So the row sums that a decay's gradient takes are numbers
that it stores, a task that only scales or adds to its rows is no task, and a running sum of them
that goes the same way is a state of the walk. On GPUs walks are cut for other reasons, and a step
that holds more would have room for less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...ir.expression import Call, Expr, Kind, Literal, Read, Reduce, Ref, Scalar, Size
from ...ir.names import free_name, names_in
from ...ir.plan import Buffer, Plan
from ...ir.recurrence_tasks import LoopTask
from ...ir.rewriting import transform, walk, with_names
from ...ir.roles import dim_roles
from ...ir.targets import CpuTarget
from ...ir.task import PointwiseTask, RunningSumTask, Task, buffers_of
from ...ir.tile import DType
from ..tiles.moving import without_groups
from .carried_sums import carried_sum
from .copies import without_copies

_PLAIN = (Call, Literal, Read, Ref, Scalar, Size)


def rows_in_walks(plan: Plan) -> Plan:
    """Every row-wise part of a task that spares it a walk's rows, in that walk.

    Tasks of a plan with loops of the host stay where they are: an order by what they read and write
    alone would take rows apart.
    """
    if not isinstance(plan.target, CpuTarget) or plan.loops:
        return plan
    for walk_name in [t.name for t in plan.tasks if isinstance(t, LoopTask)]:
        for reader in [t.name for t in plan.tasks if isinstance(t, PointwiseTask)]:
            plan = _Pair(plan, walk_name, reader).joined()
    return without_copies(plan)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A walk and a task that may read its rows."""

    plan: Plan
    walk_name: str
    reader_name: str

    @property
    def walk(self) -> LoopTask:
        """The walk as it stands."""
        found = next(t for t in self.plan.tasks if t.name == self.walk_name)
        assert isinstance(found, LoopTask)
        return found

    @property
    def reader(self) -> PointwiseTask:
        """The other task."""
        found = next(t for t in self.plan.tasks if t.name == self.reader_name)
        assert isinstance(found, PointwiseTask)
        return found

    def joined(self) -> Plan:
        """The plan with as much of the reader in the walk as spares it rows."""
        own = {name for name, _ in self.walk.own}
        if not own & names_in(self.reader.value):
            return self.plan
        return self._whole() or self._running() or self._sums() or self.plan

    def _whole(self) -> Plan | None:
        """The reader as a result of the walk, if nothing else wants the rows that it is made of."""
        walk_, reader, plan = self.walk, self.reader, self.plan
        value = self._by_row(reader.value)
        if type(reader) is not PointwiseTask or value is None:
            return None
        if value.axes != frozenset(plan.buffer(reader.result).dims):
            return None
        others = [t for t in plan.tasks if t not in (walk_, reader)]
        wanted = frozenset[str]().union(*map(buffers_of, others))
        outputs = {o.name for o in plan.mixer.outputs}
        spared = {n for n, _ in walk_.own if n in names_in(value)} - wanted - outputs
        if not spared:
            return None
        made = (reader.result, with_names(value, dict(walk_.own)))
        kept = tuple(pair for pair in walk_.own if pair[0] not in spared)
        tasks = [self._with(walk_, (*kept, made)) if t is walk_ else t for t in plan.tasks]
        tasks.remove(reader)
        return _ordered(plan, tasks)

    def _running(self) -> Plan | None:
        """The reader as states of the walk, if it is a running sum of rows that goes its way."""
        walk_, reader, plan = self.walk, self.reader, self.plan
        if not isinstance(reader, RunningSumTask) or reader.sum.kind is not Kind.REAL:
            return None
        x, start = self._by_row(reader.sum.x), self._before_rows(reader.start)
        if x is None or start is None or (reader.sum.over, reader.sum.reverse) != self._way:
            return None
        channels = x.axes - {walk_.over, *walk_.positions}
        if not channels or x.axes != frozenset(plan.buffer(reader.result).dims):
            return None
        taken = {*(b.name for b in plan.buffers), *(i.name for i in plan.mixer.inputs)}
        taken |= walk_.local | {d for b in plan.buffers for d in b.dims}

        def free(name: str) -> str:
            taken.add(made := free_name(name, taken))
            return made

        made = carried_sum(reader, with_names(x, dict(walk_.own)), start, free)
        walk_ = replace(
            walk_,
            lines=(*walk_.lines, *made.lines),
            states=(*walk_.states, *made.states),
        )
        joined = self._with(walk_, (*walk_.own, (reader.result, made.value)))
        tasks = [joined if task is self.walk else task for task in plan.tasks if task is not reader]
        return _ordered(plan, tasks)

    def _sums(self) -> Plan | None:
        """The reader with the sums of rows as numbers that the walk stores."""
        walk_, reader, plan = self.walk, self.reader, self.plan
        taken = {*(b.name for b in plan.buffers), *(d for b in plan.buffers for d in b.dims)}
        roles, made, buffers = dim_roles(plan.mixer, dict(plan.sizes)), [], list(plan.buffers)
        known: dict[Expr, Ref] = {}

        def stored(node: Expr) -> Expr | None:
            value = self._sum(node)
            if value is None:
                return None
            if value not in known:
                name = free_name(f"{reader.result}_row", taken)
                taken.add(name)
                dims = roles.order(node.axes)
                buffers.append(Buffer(name, dims, DType.FLOAT32, "temporary"))
                made.append((name, with_names(value, dict(walk_.own))))
                known[value] = Ref(name, node.axes, Kind.REAL)
            return known[value]

        lean = replace(reader, value=transform(reader.value, stored))
        if not made or not self._spares_rows(reader, lean):
            return None
        changed: dict[str, Task] = {
            walk_.name: self._with(walk_, (*walk_.own, *made)),
            reader.name: lean,
        }
        tasks = [changed.get(task.name, task) for task in plan.tasks]
        return _ordered(replace(plan, buffers=tuple(buffers)), tasks)

    def _spares_rows(self, task: PointwiseTask, lean: PointwiseTask) -> bool:
        return bool(buffers_of(task) - buffers_of(lean))

    def _with(self, walk_: LoopTask, own: tuple[tuple[str, Expr], ...]) -> LoopTask:
        names = (*(name for name, _ in own), *(s.last for s in walk_.states if s.last))
        return replace(walk_, own=own, about=f"{', '.join(names)}: row by row along {walk_.over}")

    # ---------------------------------------------------------------------- what a row has

    def _sum(self, node: Expr) -> Expr | None:
        """A sum over channels of what the walk has in a row, as a number of that row."""
        plain = isinstance(node, Reduce) and node.op == "sum" and node.where is None
        if not isinstance(node, Reduce) or not plain or node.group:
            return None
        inner = self._by_row(node.x)
        if inner is None or not {*node.over} <= self._whole_axes():
            return None
        if node.axes != {self.walk.over, *self.walk.positions}:
            return None
        return replace(node, x=inner)

    def _whole_axes(self) -> frozenset[str]:
        """The axes of any length that a program of the walk holds from end to end."""
        states = frozenset[str]().union(*(s.dims for s in self.walk.states))
        return states & {dim for dim, _ in self.plan.sizes} - {*self.walk.tiled}

    @property
    def _way(self) -> tuple[str, bool]:
        return self.walk.over, self.walk.reverse

    def _before_rows(self, start: Expr | None) -> Expr | None:
        """What a sum starts from as a program of the walk computes it once, or None."""
        if start is None:
            return Literal(0.0)
        start = without_groups(start, self.plan.mixer.heads)
        own = {*self.walk.positions}.union(*(s.dims for s in self.walk.states))
        for node in walk(start):
            if not isinstance(node, (*_PLAIN, Reduce)) or isinstance(node, Read):
                return None
            if isinstance(node, Reduce) and not {*node.over} <= self._whole_axes():
                return None
            if not node.axes <= own:
                return None
        return start

    def _by_row(self, expr: Expr) -> Expr | None:
        """``expr`` as a row of the walk computes it, or None where it takes more than a row."""
        heads = self.plan.mixer.heads
        expr = without_groups(expr, heads)
        row = {self.walk.over, *self.walk.positions, *(group for group, _ in heads)}
        own = row | frozenset[str]().union(*(s.dims for s in self.walk.states))
        nodes = [*walk(expr)]
        if any(not isinstance(n, _PLAIN) or isinstance(n, Read) for n in nodes):
            return None
        if self.walk.over not in expr.axes or any(not n.axes <= own for n in nodes):
            return None
        return expr


def _ordered(plan: Plan, tasks: Sequence[Task]) -> Plan | None:
    """The plan with these tasks, what makes a buffer before what reads it; None in a circle."""
    import networkx

    graph: networkx.DiGraph[int] = networkx.DiGraph()
    writer = {name: n for n, task in enumerate(tasks) for name in task.writes}
    graph.add_nodes_from(range(len(tasks)))
    for n, task in enumerate(tasks):
        made = (writer[name] for name in buffers_of(task) if name in writer)
        graph.add_edges_from((maker, n) for maker in made if maker != n)
    if not networkx.is_directed_acyclic_graph(graph):
        return None
    order = networkx.lexicographical_topological_sort(graph)
    kept = tuple(tasks[n] for n in order)
    used = frozenset[str]().union(*map(buffers_of, kept))
    buffers = tuple(b for b in plan.buffers if b.name in used or b.role != "temporary")
    return replace(plan, tasks=kept, buffers=buffers)
