"""What a plan holds while it is made: values written out by name, or stored by kernels.

A name is written out where it is used unless computing it there would repeat much work: running
sums, reductions over a long axis, and costly functions of the keys alone (rotations, norms), which
every block of queries would compute again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from typing import Literal as OneOf

from ...ir.errors import UnsupportedError
from ...ir.expression import (
    Cumsum,
    Expr,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Solve,
    call,
)
from ...ir.host import Number
from ...ir.mixer import Mixer
from ...ir.names import free_name, names_in
from ...ir.optional import expressions
from ...ir.plan import Buffer, Plan, Role
from ...ir.rewriting import rebuild, tree_size, walk
from ...ir.roles import DimRoles, dim_roles
from ...ir.row_loop import RowLoop
from ...ir.selection_tasks import EndsTask
from ...ir.targets import EVERY_GPU, AnyTarget
from ...ir.task import PointwiseTask, RunningSumTask, Task, buffers_of
from ...ir.tile import DType
from ..passes.fold_constants import fold_constants
from ..tiles.context import Context, context_of
from ..tiles.moving import move
from .fixed_sizes import declared_sizes, fixed_params, following_sizes
from .ranks import FirstRanks, first_ranks
from .repeated_factors import without_repeated_factors
from .shared_columns import is_too_large, shared_columns
from .started_sums import running_sum, with_starts
from .tiled_dims import tiled_dims
from .worth_storing import (
    Place,
    compared_with_its_extreme,
    is_cheaper_where_read,
    is_exact,
    is_long,
    reason_to_store,
    spreads_heads,
    tests_of_range,
)

KIND_DTYPE = {Kind.BOOL: DType.BOOL, Kind.INT: DType.INT32}


@dataclass
class PlanBuilder:
    """A plan in the making: its kernels and buffers so far, and what names stand for."""

    mixer: Mixer
    sizes: Mapping[str, int]
    params: Mapping[str, Number]
    dtype: DType
    roles: DimRoles
    context: Context
    fixed: dict[str, int]  # the context's sizes
    tasks: list[Task] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    names: dict[str, Expr] = field(default_factory=dict)  # written-out values by name
    stored: dict[Expr, Ref] = field(default_factory=dict)  # written-out value -> its buffer
    splits: int = 1  # shares that an attention's keys are dealt out in
    recurrence: str = "chunk"  # the schedule of recurrences that several fit: chunk, loop
    target: AnyTarget = EVERY_GPU
    block_counts: dict[str, str] = field(default_factory=dict)  # dim of tables -> dim in blocks
    block_lengths: dict[str, str] = field(default_factory=dict)  # dim of buffers -> dim in blocks
    lengths: dict[str, Expr] = field(default_factory=dict)  # sizes of other dims of its own
    read: frozenset[str] = frozenset()  # names that an expression of the mixer has
    loops: list[RowLoop] = field(default_factory=list)  # of the host
    _seen: dict[object, Expr] = field(
        default_factory=dict
    )  # what ``materialised`` has gone through

    def plan(self) -> Plan:
        """The plan as it stands; of its tasks those whose results something reads."""
        tasks = self._read_tasks()
        return Plan(
            self.mixer,
            (),
            tuple(self.context.buffers[b] for b in self._used_buffers(tasks)),
            tuple(sorted(self.context.sizes.items())),
            tuple(sorted(self.params.items())),
            self.dtype,
            tuple(self.findings),
            tuple(self.block_counts.items()),
            tuple(self.block_lengths.items()),
            lengths=tuple(self.lengths.items()),
            tasks=tuple(tasks),
            names=tuple(self.context.names.items()),
            integers=tuple(self.context.ranges.made.items()),
            shares=self.splits,
            target=self.target,
            loops=tuple(self.loops),
        )

    def _read_tasks(self) -> list[Task]:
        """A value may have been stored for what is now computed otherwise."""
        tasks, outputs = list(self.tasks), {o.name for o in self.mixer.outputs}
        outputs = outputs.union(*(loop.needs | loop.filled for loop in self.loops))
        while True:
            read = outputs.union(*(buffers_of(task) - {*task.writes} for task in tasks))
            kept = [task for task in tasks if not read.isdisjoint(task.writes)]
            if len(kept) == len(tasks):
                return kept
            tasks = kept

    def _used_buffers(self, tasks: Iterable[Task]) -> list[str]:
        used = {name for task in tasks for name in buffers_of(task)}
        used.update(*(loop.needs | loop.gives | {*loop.views} for loop in self.loops))
        given = {i.name for i in self.mixer.inputs}
        return [name for name in self.context.buffers if name in used or name in given]

    def named(self, name: str, value: Expr) -> Expr:
        """``value``, which emitted code may call ``name``."""
        if not isinstance(value, Literal | Ref | Scalar):
            self.context.names.setdefault(value, name)
        return value

    def mark(self) -> tuple[object, ...]:
        """How things stand: what ``back_to`` takes."""
        kept = (self.tasks, self.names, self.stored, self.context.buffers, self.findings)
        return tuple(held.copy() for held in kept)

    def back_to(self, mark: tuple[Any, ...]) -> None:
        """Everything as it was."""
        tasks, names, stored, buffers, findings = mark
        self.tasks[:], self.findings[:] = tasks, findings
        for own, held in (
            (self.names, names),
            (self.stored, stored),
            (self.context.buffers, buffers),
        ):
            own.clear()
            own.update(held)
        self._seen.clear()

    def role(self, name: str) -> Role:
        """What the buffer ``name`` is for."""
        return self.context.buffers[name].role

    def is_wide(self, name: str) -> bool:
        """Whether a result keeps float32 because kernels hand it to each other."""
        own = name in {output.name for output in self.mixer.outputs}
        return self.mixer.wide and (not own or name in self.read)

    def asks_for_float32(self, name: str) -> bool:
        """Whether an output is stored in float32 whatever the inputs are."""
        return any(o.name == name and o.dtype == "float32" for o in self.mixer.outputs)

    # --------------------------------------------------------------------------- expressions

    def inlined(self, expr: Expr) -> Expr:
        """``expr`` with every name that has no buffer replaced by what it stands for."""

        def change(node: Expr) -> Expr:
            match node:
                case Ref(name) if name in self.names:
                    return self.names[name]
                case Scalar(name, _, False) if name not in self.params:
                    return self.named(name, self.inlined(self.mixer.param(name).value))
            return rebuild(node, change)

        made = fold_constants(change(expr), self.params, self.context.sizes)
        self._store_compared(made)
        return made

    def materialised(
        self, expr: Expr, block: str | None, loop: str | None, inside: bool = False
    ) -> Expr:
        """``expr`` for a kernel with these axes: what is better computed before is stored.

        ``inside``: within a reduction over a long axis, or in an attention.
        """
        key = (expr, block, loop, inside, len(self.stored))
        if key not in self._seen:
            self._seen[key] = self._prepare(expr, block, loop, inside)
        return self._seen[key]

    def _prepare(self, expr: Expr, block: str | None, loop: str | None, inside: bool) -> Expr:
        expr = with_starts(expr, self.context.sizes)
        known = self.stored.get(expr)
        if known is not None:
            return known
        if (compared := compared_with_its_extreme(expr)) is not None:
            self._stored_once(*compared)
        ranks = first_ranks(expr)
        if ranks is not None and ranks.over not in self.context.sizes:
            return self._selected(ranks)
        if (
            isinstance(expr, Read)
            and spreads_heads(expr, self.context)
            and self._reason(expr.x, block, loop, inside) is not None
        ):  # one copy per group of heads, which each head of the group then reads
            return replace(expr, x=self.materialised(expr.x, block, loop, inside))
        reason = self._reason(expr, block, loop, inside)
        if reason is not None:
            return self.store(self.temporary_name(expr), expr, None, "temporary", reason)
        if isinstance(expr, Read) and not self.is_stored(expr.x):
            return self._prepared_read(expr, block, loop, inside)
        deeper = inside or is_long(expr, self.context.sizes)
        return rebuild(expr, lambda child: self.materialised(child, block, loop, deeper))

    def _store_compared(self, expr: Expr) -> None:
        """What is compared with its own extreme in an expression, before that is stored by itself;
        not what a step makes, which is in no buffer."""
        for node in walk(expr):
            if (compared := compared_with_its_extreme(node)) is not None:
                refs = (n for n in walk(compared[0]) if isinstance(n, Ref))
                if all(ref.name in self.context.buffers for ref in refs):
                    self._stored_once(*compared)

    def _stored_once(self, x: Expr, extreme: Reduce) -> None:
        """``x`` in a buffer, of which its largest is found and which is compared with that: made
        twice, in sums of another order, it would equal no largest of its own."""
        fixed = self.context.sizes
        if x in self.stored or is_exact(x) or all(dim in fixed for dim in extreme.over):
            return
        reason = f"it is compared with its own {extreme.op} along {', '.join(extreme.over)}"
        if self.stored.pop(extreme, None) is not None:  # of another making
            self._seen.clear()
        self.store(self.temporary_name(x), x, None, "temporary", reason, wide=True)

    def _selected(self, ranks: FirstRanks) -> Expr:
        """What is among the first of its row, by two numbers for each row that a kernel finds."""
        return ranks.admitted(*self.ends(ranks.x, ranks.over, ranks.kept))

    def ranked(self, x: Expr, over: str) -> Ref:
        """``x`` in a buffer of its own, from which rows are ranked along ``over``."""
        stored = self.materialised(x, None, None, inside=True)
        if isinstance(stored, Ref) and self.is_stored(stored):
            return stored
        reason = f"the largest along {over} are selected"
        return self.store(self.temporary_name(x), x, None, "temporary", reason)

    def ends(self, x: Expr, over: str, kept: Expr) -> tuple[Ref, Ref, Ref]:
        """``x``, stored, and where the ``kept`` largest of its rows end: see ``EndsTask``."""
        stored = self.ranked(x, over)
        read = self.materialised(kept, None, None, inside=True)
        rows = (x.axes | read.axes) - {over}
        least, last = (self.free_name(f"{stored.name}_{part}") for part in ("least", "last"))
        for name, dtype in ((least, DType.FLOAT32), (last, DType.INT32)):
            self.context.buffers[name] = Buffer(name, self.order(rows), dtype, "temporary")
        self.tasks.append(
            EndsTask(
                name=self.kernel_name(least),
                x=stored,
                over=over,
                kept=read,
                least=least,
                last=last,
                tiled=tuple(self.tiled(stored, self.order(rows))[-1:]),
                about=f"{least}, {last}: where the largest of a row end, and their last equal",
                reason=f"the largest along {over} are selected",
            )
        )
        return stored, Ref(least, rows, Kind.REAL), Ref(last, rows, Kind.INT)

    def _reason(self, expr: Expr, block: str | None, loop: str | None, inside: bool) -> str | None:
        return reason_to_store(expr, Place(block, loop, inside), self.context, self.roles)

    def is_stored(self, expr: Expr) -> bool:
        return isinstance(expr, Ref) and expr.name in self.context.buffers

    def _prepared_read(self, read: Read, block: str | None, loop: str | None, inside: bool) -> Expr:
        """A read of a value that is in no buffer: pushed into it, or the value is stored."""
        heavy = any(isinstance(n, Reduce | Cumsum) for n in walk(read.x))
        at = tuple((d, self.materialised(e, block, loop, inside)) for d, e in read.at)
        if heavy and not is_cheaper_where_read(read, self.context, self.roles):
            reason = self._reason(read.x, None, None, inside) or "it is read at an index"
            ref = self.stored.get(read.x) or self.store(
                self.temporary_name(read.x), read.x, None, "temporary", reason
            )
            return Read(ref, at, read.fill, span=read.span)
        if spreads_heads(read, self.context):  # what is stored of it is stored per group
            return move(self.materialised(read.x, block, loop, inside), dict(at))
        moved = move(read.x, dict(read.at))
        value = self.materialised(moved, block, loop, inside)
        inside_of = None
        for dim, index in at:
            for test in tests_of_range(dim, index, self.context):
                inside_of = test if inside_of is None else call("and", inside_of, test)
        if inside_of is None:
            return value
        fill = int(read.fill) if float(read.fill).is_integer() else read.fill
        return call("where", inside_of, value, fill)

    # ------------------------------------------------------------------------ stored values

    def temporary_name(self, expr: Expr) -> str:
        """What the spec calls it; else after the smallest named value that it is a part of."""
        if (found := running_sum(expr, self.context.sizes)) is not None:
            expr = found[0]
        name = self.context.names.get(expr)
        if name is None:
            leaves = [n.name for n in walk(expr) if isinstance(n, Ref)]
            name = f"{leaves[0]}_made" if leaves else "made"
            wholes = {n: w for w, n in self.context.names.items() if expr in set(walk(w))}
            if wholes:
                part = expr.op if isinstance(expr, Reduce) else "part"
                whole = min(wholes, key=lambda n: tree_size(wholes[n]))
                name = f"{whole}_{part}"
        return self.free_name(name)

    def free_name(self, name: str) -> str:
        return free_name(name, set(self.context.buffers) | {o.name for o in self.mixer.outputs})

    def free_dim(self, name: str) -> str:
        """A dim that no buffer has, called so or nearly so."""
        taken = {dim for buffer in self.context.buffers.values() for dim in buffer.dims}
        return free_name(
            name, taken | {dim for output in self.mixer.outputs for dim in output.dims}
        )

    def add_dim(self, dim: str, size: Expr) -> None:
        """A dim of the plan's own, walked block by block like a sequence."""
        self.lengths[dim] = size
        self.roles = self.roles.with_long(dim)
        ranges = self.context.ranges
        self.context = replace(
            self.context, ranges=replace(ranges, derived={**ranges.derived, dim: size})
        )

    def store(
        self,
        name: str,
        expr: Expr,
        dims: tuple[str, ...] | None,
        role: OneOf["output", "temporary"],
        reason: str,
        wide: bool = False,
    ) -> Ref:
        """A kernel that computes ``expr`` into a buffer of its own, with ``wide`` in float32."""
        order = dims if dims is not None else self.order(expr.axes)
        self.declare(name, order, expr, role, wide)
        self.compute(name, expr, order, reason)
        ref = Ref(name, expr.axes, expr.kind)
        wide = self.context.buffers[name].dtype is DType.FLOAT32
        if role == "temporary" or (wide and expr.kind is Kind.REAL):  # none that lost bits
            self.stored[expr] = ref
        return ref

    def result(self, name: str, value: Expr, reason: str) -> Ref:
        """A stage's result, stored: in the output of that name where there is one."""
        output = next((o for o in self.mixer.outputs if o.name == name), None)
        if output is None:
            return self.store(name, value, None, "temporary", reason)
        return self.store(name, value, output.dims, "output", reason)

    def compute(self, name: str, expr: Expr, order: tuple[str, ...], reason: str) -> None:
        """A kernel that fills the buffer ``name``."""
        kernel = self.kernel_name(name)
        expr = with_starts(expr, self.context.sizes)
        if (found := running_sum(expr, self.context.sizes)) is not None:
            self._running_sum(name, *found, order, reason)
            return
        self._store_compared(expr)
        fixed, sequences = frozenset(self.context.sizes), frozenset(dict(self.mixer.sequences))
        expr = without_repeated_factors(expr, fixed, sequences, self._stored_factor)
        tiled = [d for d in self.tiled(expr, order) if d not in _systems(expr)]
        shared = is_too_large(order, expr, self.context.sizes, self.target)
        if shared:  # what has as many channels is a program's own, position by position
            tiled = [d for d in tiled if d in self.roles.long]
        block = tiled[0] if tiled else None
        value = rebuild(
            expr, lambda c: self.materialised(c, block, None, is_long(expr, self.context.sizes))
        )
        if isinstance(expr, Read) and not self.is_stored(expr.x):
            value = self._prepared_read(expr, block, None, False)
        if shared:
            tiled += shared_columns(order, value, self.context.sizes, self.target)
        about = f"{name}: {reason}"
        self.tasks.append(PointwiseTask(kernel, name, value, tuple(tiled), about, reason))

    def _running_sum(
        self, name: str, value: Cumsum, start: Expr | None, order: tuple[str, ...], reason: str
    ) -> None:
        """The kernel of a running sum, and of what it is before its first row."""
        running = replace(value, x=self.materialised(value.x, None, None, inside=True))
        about = f"{name}: a running sum along {value.over}"
        if start is not None:
            start = self.materialised(start, None, None, inside=True)
        whole = running if start is None else call("add", running, start)
        columns = shared_columns(order, whole, self.context.sizes, self.target)
        kernel = self.kernel_name(name)
        task = RunningSumTask(kernel, name, running, columns, about, reason, start=start)
        self.tasks.append(task)

    def _stored_factor(self, factor: Expr) -> Expr:
        """The buffer of a costly factor of a long sum."""
        if factor in self.stored:
            return self.stored[factor]
        reason = "a factor of a long sum, the same for many rows"
        return self.store(self.temporary_name(factor), factor, None, "temporary", reason)

    def order(self, axes: frozenset[str]) -> tuple[str, ...]:
        """Axes of a temporary: batch dims, then sequences, then features."""
        return self.roles.order(axes)

    def tiled(self, expr: Expr, order: tuple[str, ...]) -> list[str]:
        """The dims that a pointwise kernel cuts into tiles."""
        return tiled_dims(expr, order, self.roles.long, self.context.sizes)

    def declare(
        self,
        name: str,
        dims: tuple[str, ...],
        expr: Expr,
        role: OneOf["output", "temporary"],
        wide: bool = False,
    ) -> None:
        """A buffer for what an expression gives."""
        dtype = KIND_DTYPE.get(expr.kind, self.dtype)
        if expr.kind is Kind.REAL:
            wide = wide or (role == "temporary" and not set(dims) & self.roles.features)
            wide = wide or self.is_wide(name) or self.asks_for_float32(name)
            dtype = DType.FLOAT32 if wide else self.dtype
        elif expr.kind is Kind.INT:
            self.context.ranges.made[name] = expr
            dtype = DType.INT32 if self.context.ranges.bits(expr) == 32 else DType.INT64
        self.context.buffers[name] = Buffer(name, dims, dtype, role)

    def kernel_name(self, result: str) -> str:
        return f"{self.mixer.name}_{result}"


def _systems(expr: Expr) -> set[str]:
    """Axes along which each position has a system of equations of its own: a tile holds one."""
    return {dim for node in walk(expr) if isinstance(node, Solve) for dim in node.matrix.axes}


def plan_builder(
    mixer: Mixer,
    sizes: Mapping[str, int],
    dtype: DType,
    splits: int = 1,
    recurrence: str = "chunk",
    target: AnyTarget = EVERY_GPU,
) -> PlanBuilder:
    """A workspace with the facts that the mixer's declarations give."""
    roles = dim_roles(mixer, sizes)
    lengths = {d: n for t in mixer.tables for d, n in zip(t.dims, t.shape, strict=True)}
    lengths |= declared_sizes(mixer)
    fixed = {d: lengths.get(d, sizes.get(d, 64)) for d in roles.features}
    fixed |= following_sizes(mixer, fixed, sizes)
    params = fixed_params(mixer, fixed)
    given = {
        i.name: Buffer(i.name, i.dims, _input_dtype(i.dtype, i.kind, dtype), "input")
        for i in mixer.inputs
    }
    tables = {
        t.name: Buffer(t.name, t.dims, KIND_DTYPE.get(t.kind, DType.FLOAT32), "table")
        for t in mixer.tables
    }
    context = context_of(mixer, fixed, params, dtype, {**given, **tables})
    return PlanBuilder(
        mixer,
        sizes,
        params,
        dtype,
        roles,
        context,
        fixed,
        splits=splits,
        recurrence=recurrence,
        target=target,
        read=names_in(*expressions(mixer)),
    )


def _input_dtype(declared: str | None, kind: Kind, dtype: DType) -> DType:
    if kind is Kind.REAL:
        if declared == "float64":
            raise UnsupportedError("an input of float64: kernels take float32 and 16-bit numbers")
        return dtype if declared is None else DType(declared)
    return DType(declared) if declared in ("int64", "int32") else KIND_DTYPE[kind]
