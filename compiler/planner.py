"""From a mixer to a plan: which values get a kernel of their own, and which are computed in place.

A name is written out where it is used unless computing it there would repeat much work: running
sums, reductions over a long axis, and costly functions of the keys alone (rotations, norms), which
every block of queries would compute again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal as OneOf

from ..ir.errors import UnsupportedError
from ..ir.expression import (
    TRANSCENDENTAL,
    Call,
    Cumsum,
    Expr,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    call,
    rebuild,
    substitute,
    walk,
)
from ..ir.host import Number, evaluate_host
from ..ir.mixer import Attention, Equation, Map, Mixer
from ..ir.plan import Buffer, Kernel, Plan
from ..ir.roles import DimRoles, dim_roles, equal_lengths, query_axis
from ..ir.tile import DType, Program
from .analysis.facts import facts_of, is_natural
from .analysis.mask_ranges import key_ranges, needs_block_table
from .analysis.one_pass import Plain, Rescaled, TwoPass, classify
from .defaults import attention_configurations, pointwise_blocks
from .estimates import fits
from .passes.fold_constants import fold_constants
from .schedules.block_table import BlockTable, block_table
from .schedules.evaluation import Context, move
from .schedules.flash import FlashTask, flash, in_base_two, written
from .schedules.pointwise import pointwise, running_sum
from .schedules.split import Split, merged

Launch = tuple[tuple[str, int], ...]
_LIGHT: Launch = (("num_warps", 4), ("num_stages", 2))  # kernels that are no attention
_KIND_DTYPE = {Kind.BOOL: DType.BOOL, Kind.INT: DType.INT32}


@dataclass
class Planner:
    """A plan in the making."""

    mixer: Mixer
    sizes: Mapping[str, int]
    params: Mapping[str, Number]
    dtype: DType
    roles: DimRoles
    context: Context
    fixed: dict[str, int]  # the context's sizes
    kernels: list[Kernel] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    names: dict[str, Expr] = field(default_factory=dict)  # written-out values by name
    stored: dict[Expr, Ref] = field(default_factory=dict)  # written-out value -> its buffer
    splits: int = 1  # shares that an attention's keys are dealt out in
    block_counts: dict[str, str] = field(default_factory=dict)  # dim of tables -> dim in blocks

    # ------------------------------------------------------------------------------- stages

    def run(self) -> Plan:
        """Every stage, then the outputs that no stage has stored."""
        for let in self.mixer.lets:
            self.names[let.name] = self._name(let.name, self.written_out(let.value))
        for stage in self.mixer.stages:
            match stage:
                case Attention():
                    self._attention(stage)
                case Map(equations):
                    for equation in equations:
                        self._equation(equation)
        for output in self.mixer.outputs:
            self._output(output.name)
        return Plan(
            self.mixer,
            tuple(self.kernels),
            tuple(self.context.buffers[b] for b in self._used_buffers()),
            tuple(sorted(self.context.sizes.items())),
            tuple(sorted(self.params.items())),
            self.dtype,
            tuple(self.findings),
            tuple(self.block_counts.items()),
        )

    def _used_buffers(self) -> list[str]:
        used = {name for k in self.kernels for name in (*k.reads, *k.writes)}
        given = {i.name for i in self.mixer.inputs}
        return [name for name in self.context.buffers if name in used or name in given]

    def _name(self, name: str, value: Expr) -> Expr:
        if not isinstance(value, Literal | Ref | Scalar):
            self.context.names.setdefault(value, name)
        return value

    def _equation(self, equation: Equation) -> None:
        self.names[equation.name] = self._name(equation.name, self.written_out(equation.value))

    def _output(self, name: str) -> None:
        value = self.names.get(name)
        if value is None:
            raise UnsupportedError(f"{self.mixer.name}: nothing computes the output {name}")
        if isinstance(value, Ref) and value.name == name and self._role(name) == "output":
            return
        output = next(o for o in self.mixer.outputs if o.name == name)
        self._store(name, value, output.dims, "output", "an output of the mixer")

    def _role(self, name: str) -> OneOf["input", "output", "table", "temporary"]:
        return self.context.buffers[name].role

    # --------------------------------------------------------------------------- expressions

    def written_out(self, expr: Expr) -> Expr:
        """``expr`` with every name that has no buffer replaced by what it stands for."""

        def change(node: Expr) -> Expr:
            match node:
                case Ref(name) if name in self.names:
                    return self.names[name]
                case Scalar(name, _, False) if name not in self.params:
                    return self.written_out(self.mixer.param(name).value)
            return rebuild(node, change)

        return fold_constants(change(expr), self.params, self.context.sizes)

    def prepared(
        self, expr: Expr, block: str | None, loop: str | None, inside: bool = False
    ) -> Expr:
        """``expr`` for a kernel with these axes: what is better computed before is stored.

        ``inside``: within a reduction over a long axis, or in an attention.
        """
        known = self.stored.get(expr)
        if known is not None:
            return known
        if (
            isinstance(expr, Read)
            and self._by_head(expr)
            and self._reason_to_store(expr.x, block, loop, inside) is not None
        ):  # one copy per group of heads, which each head of the group then reads
            return replace(expr, x=self.prepared(expr.x, block, loop, inside))
        reason = self._reason_to_store(expr, block, loop, inside)
        if reason is not None:
            return self._store(self._temporary_name(expr), expr, None, "temporary", reason)
        if isinstance(expr, Read) and not self._is_stored(expr.x):
            return self._prepared_read(expr, block, loop, inside)
        deeper = inside or self._is_long(expr)
        return rebuild(expr, lambda child: self.prepared(child, block, loop, deeper))

    def _by_head(self, read: Read) -> bool:
        """Whether a read only spreads groups over their heads."""
        return all((d, *e.axes) in self.context.heads for d, e in read.at)

    def _is_stored(self, expr: Expr) -> bool:
        return isinstance(expr, Ref) and expr.name in self.context.buffers

    def _is_long(self, expr: Expr) -> bool:
        """A reduction over an axis that no tile holds."""
        return isinstance(expr, Reduce) and any(d not in self.context.sizes for d in expr.over)

    def _reason_to_store(
        self, expr: Expr, block: str | None, loop: str | None, inside: bool
    ) -> str | None:
        if self._is_long_sum(expr):
            return "a running sum"
        if self._is_long(expr) and (inside or (block is not None and block not in expr.axes)):
            return "a reduction over a long axis"
        if loop is None or loop not in expr.axes or (block is not None and block in expr.axes):
            return None
        if self._is_stored(expr) or not expr.axes & self.roles.features:
            return None
        if any(isinstance(n, Ref) and n.name in ("score", "total") for n in walk(expr)):
            return None
        if self._is_costly(expr):
            return "each block of queries would compute it again"
        return None

    def _is_costly(self, expr: Expr) -> bool:
        """Whether an expression does more than loads and a few operations per element.

        A norm does not: it is one number per key, which costs little beside the key's product with
        a whole block of queries. Nor does what is stored by itself.
        """
        if self._is_long(expr) or self._is_long_sum(expr):
            return False
        heavy = isinstance(expr, Reduce | Cumsum) or (
            isinstance(expr, Call) and expr.fn in TRANSCENDENTAL
        )
        if heavy and expr.axes & self.roles.features:
            return True
        return any(self._is_costly(child) for child in expr.children)

    def _is_long_sum(self, expr: Expr) -> bool:
        return isinstance(expr, Cumsum) and expr.over not in self.context.sizes

    def _prepared_read(self, read: Read, block: str | None, loop: str | None, inside: bool) -> Expr:
        """A read of a value that is in no buffer: pushed into it, or the value is stored."""
        heavy = any(isinstance(n, Reduce | Cumsum) for n in walk(read.x))
        at = tuple((d, self.prepared(e, block, loop, inside)) for d, e in read.at)
        if heavy and not self._may_push(read):
            reason = self._reason_to_store(read.x, None, None, inside) or "it is read at an index"
            ref = self.stored.get(read.x) or self._store(
                self._temporary_name(read.x), read.x, None, "temporary", reason
            )
            return Read(ref, at, read.fill, span=read.span)
        if self._by_head(read):  # what is stored of it is stored per group
            return move(self.prepared(read.x, block, loop, inside), dict(at))
        moved = move(read.x, dict(read.at))
        value = self.prepared(moved, block, loop, inside)
        inside_of = None
        for dim, index in at:
            for test in self._range_tests(dim, index):
                inside_of = test if inside_of is None else call("and", inside_of, test)
        if inside_of is None:
            return value
        fill = int(read.fill) if float(read.fill).is_integer() else read.fill
        return call("where", inside_of, value, fill)

    def _range_tests(self, dim: str, index: Expr) -> list[Expr]:
        from ..ir.expression import Index, Size

        equal = self.context.equal
        match index:
            case Index(other) if equal.get(other, other) == equal.get(dim, dim):
                return []
            case Call("floordiv", (Index(head), _)) if (dim, head) in self.context.heads:
                return []
        below = call("lt", index, Size(dim))
        return [below] if is_natural(index, self.context.masks) else [call("ge", index, 0), below]

    def _may_push(self, read: Read) -> bool:
        """Whether computing a reduction only where it is read is cheaper, and possible."""
        free = frozenset[str]().union(*(e.axes for _, e in read.at))
        bound: set[str] = set()
        for node in walk(read.x):
            if isinstance(node, Reduce):
                bound |= set(node.over)
            elif isinstance(node, Cumsum):
                return False
        heads = all((d, *e.axes) in self.context.heads for d, e in read.at)
        if bound & (free | {d for d, _ in read.at}):
            return False
        if heads:
            return True
        if free & read.x.axes:
            return False
        return self.roles.cost(read.axes) < self.roles.cost(read.x.axes)

    # ------------------------------------------------------------------------ stored values

    def _temporary_name(self, expr: Expr) -> str:
        """What the spec calls it; else after the smallest named value that it is a part of."""
        name = self.context.names.get(expr)
        if name is None:
            leaves = [n.name for n in walk(expr) if isinstance(n, Ref)]
            name = f"{leaves[0]}_made" if leaves else "made"
            wholes = {n: w for w, n in self.context.names.items() if expr in set(walk(w))}
            if wholes:
                part = expr.op if isinstance(expr, Reduce) else "part"
                whole = min(wholes, key=lambda n: sum(1 for _ in walk(wholes[n])))
                name = f"{whole}_{part}"
        return self._free_name(name)

    def _free_name(self, name: str) -> str:
        taken = set(self.context.buffers) | {o.name for o in self.mixer.outputs}
        free, count = name, 1
        while free in taken:
            count += 1
            free = f"{name}_{count}"
        return free

    def _store(
        self,
        name: str,
        expr: Expr,
        dims: tuple[str, ...] | None,
        role: OneOf["output", "temporary"],
        reason: str,
    ) -> Ref:
        """A kernel that computes ``expr`` into a buffer of its own."""
        order = dims if dims is not None else self._order(expr.axes)
        self._declare(name, order, expr.kind, role)
        self._compute(name, expr, order, reason)
        ref = Ref(name, expr.axes, expr.kind)
        if role == "temporary":
            self.stored[expr] = ref
        return ref

    def _compute(self, name: str, expr: Expr, order: tuple[str, ...], reason: str) -> None:
        """A kernel that fills the buffer ``name``."""
        launch = self._with_launch(_LIGHT)
        kernel = self._kernel_name(name)
        if isinstance(expr, Cumsum) and expr.over not in self.context.sizes:
            running = replace(expr, x=self.prepared(expr.x, None, None, inside=True))
            context = self._with_blocks(pointwise_blocks((expr.over,)))
            about = f"{name}: a running sum along {expr.over}"
            made = running_sum(kernel, name, running, context, launch, about)
            self.kernels.append(Kernel(made, "running sum", (name,), reason))
            return
        tiled = self._tiled(expr, order)
        block = tiled[0] if tiled else None
        value = rebuild(expr, lambda c: self.prepared(c, block, None, self._is_long(expr)))
        if isinstance(expr, Read) and not self._is_stored(expr.x):
            value = self._prepared_read(expr, block, None, False)
        looped = tuple(d for n in walk(value) if isinstance(n, Reduce) for d in n.over)
        context = self._with_blocks(pointwise_blocks(tiled, looped))
        about = f"{name}: {reason}"
        made = pointwise(kernel, name, value, context, tiled, launch, about)
        self.kernels.append(Kernel(made, "pointwise", (name,), reason))

    def _order(self, axes: frozenset[str]) -> tuple[str, ...]:
        """Axes of a temporary: batch dims, then sequences, then features."""

        def rank(dim: str) -> tuple[int, str]:
            if dim in self.roles.features:
                return 2, dim
            return (1 if dim in self.roles.long else 0), dim

        return tuple(sorted(axes, key=rank))

    def _tiled(self, expr: Expr, order: tuple[str, ...]) -> list[str]:
        """The dims that a pointwise kernel cuts into tiles: at most two, the longest."""
        long = [d for d in order if d in self.roles.long and d not in self.context.sizes]
        if not long:
            rest = [d for d in order if d not in self.context.sizes]
            return rest[-1:]
        features = [d for d in order if d in self.context.sizes]
        return long[-1:] if features else long[-2:]

    def _declare(
        self,
        name: str,
        dims: tuple[str, ...],
        kind: Kind,
        role: OneOf["output", "temporary"],
    ) -> None:
        if kind is Kind.REAL:
            wide = role == "temporary" and not set(dims) & self.roles.features
            dtype = DType.FLOAT32 if wide else self.dtype
        else:
            dtype = _KIND_DTYPE[kind]
        self.context.buffers[name] = Buffer(name, dims, dtype, role)

    def _kernel_name(self, result: str) -> str:
        return f"{self.mixer.name}_{result}"

    def _with_blocks(self, blocks: Mapping[str, int]) -> Context:
        allowed = dict(self.mixer.tiling)
        chosen = {d: _allowed(n, allowed.get(f"block_{d.lower()}")) for d, n in blocks.items()}
        return replace(self.context, blocks=chosen)

    def _with_launch(self, launch: Launch) -> Launch:
        """Warps and pipeline stages as the spec's ``tiling`` allows them."""
        allowed = dict(self.mixer.tiling)
        return tuple(
            (name, _allowed(number, allowed.get(name.removeprefix("num_"))))
            for name, number in launch
        )

    # ----------------------------------------------------------------------------- attention

    def _attention(self, stage: Attention) -> None:
        parts = {
            "score": stage.score,
            "mask": stage.mask,
            "sink": stage.sink,
            "gain": stage.gain,
        }
        ready = {k: None if e is None else self.written_out(e) for k, e in parts.items()}
        score = ready["score"]
        assert score is not None
        changed = replace(
            stage,
            score=score,
            mask=ready["mask"],
            sink=ready["sink"],
            gain=ready["gain"],
            weight=self._normaliser_part(stage.weight, score),
            denominator=self._normaliser_part(stage.denominator, score),
            outputs=tuple(replace(o, value=self.written_out(o.value)) for o in stage.outputs),
        )
        AttentionPlan(self, changed).run()

    def _normaliser_part(self, expr: Expr, score: Expr) -> Expr:
        """A normaliser's expression with names written out; score and total stay names."""
        saved = {n: self.names.pop(n) for n in ("score", "total") if n in self.names}
        made = self.written_out(expr)
        self.names.update(saved)
        return made


def _allowed(number: int, choices: tuple[int, ...] | None) -> int:
    """A knob's value: the compiler's, where the spec does not rule it out."""
    return number if not choices or number in choices else choices[0]


class AttentionPlan:
    """The kernels of one attention: statistics first where one pass can't do, then the pass."""

    def __init__(self, planner: Planner, stage: Attention) -> None:
        self.planner = planner
        self.stage = stage
        self.form = classify(stage)
        self.block = query_axis(planner.mixer, stage)

    def run(self) -> None:
        """Plan it, and make its results known to later stages."""
        planner, stage = self.planner, self.stage
        form = self.form
        if isinstance(form, TwoPass):
            planner.findings.append(f"two passes: {form.reason}")
            form = self._with_statistics(form)
        else:
            planner.findings.append(f"one pass: {form.reason}")
        outputs = self._declare_outputs()
        if stage.lse is not None:
            self._declare_result(stage.lse, stage.queries, DType.FLOAT32)
        total, top = self._declare_statistics(form)
        task = self._task(form, outputs, total, top)
        splits = 1 if stage.weights is not None else planner.splits
        if splits > 1:
            split = self._declare_split(task, splits)
            task = replace(task, split=split, name=f"{task.name}_shares")
        made = self._program(task)
        reason = "the attention itself"
        results = tuple(r.name for r in stage.results if r.name != stage.weights)
        planner.kernels.append(Kernel(made, "flash", results, reason))
        if task.split is not None:
            self._merge(task, task.split)
        if stage.weights is not None:
            self._weights(task)

    def _program(self, task: FlashTask) -> Program:
        """The kernel at the first configuration that fits the smallest GPU, or at the leanest."""
        planner = self.planner
        table = self._declare_table(task)
        made: Program | None = None
        for configuration in attention_configurations(
            planner.sizes, planner.roles.features, planner.dtype, task.block, task.over
        ):
            context = planner._with_blocks(configuration.blocks)
            made = flash(
                replace(task, table=table), context, planner._with_launch(configuration.launch)
            )
            if fits(made):
                break
        assert made is not None
        if table is not None:
            self._fill_table(task, table, made)
        return made

    def _declare_table(self, task: FlashTask) -> BlockTable | None:
        """Buffers for a block table, where the mask's bounds leave too much to visit."""
        planner = self.planner
        if task.mask is None or not needs_block_table(task.ranges):
            return None
        dims = planner._order(task.mask.axes - {task.block, task.over})
        starts = planner._free_name(f"{task.outputs[0][0]}_blocks")
        counts = planner._free_name(f"{task.outputs[0][0]}_block_count")
        table = BlockTable(starts, counts, dims, task.block, task.over)
        planner.block_counts |= {table.row_blocks: task.block, table.key_blocks: task.over}
        rows = (*dims, table.row_blocks)
        for name, shape in ((starts, (*rows, table.key_blocks)), (counts, rows)):
            planner.context.buffers[name] = Buffer(name, shape, DType.INT32, "temporary")
        return table

    def _fill_table(self, task: FlashTask, table: BlockTable, attention: Program) -> None:
        planner = self.planner
        assert task.mask is not None
        blocks = {dim: attention.tile(dim).block for dim in (task.block, task.over)}
        made = block_table(
            planner._kernel_name(table.starts),
            table,
            task.mask,
            task.ranges,
            planner._with_blocks(blocks),
            planner._with_launch(_LIGHT),
        )
        reason = "the mask has terms that give no bound on the keys"
        planner.findings.append(f"a table of visible blocks: {reason}")
        planner.kernels.append(Kernel(made, "block table", (table.starts, table.counts), reason))

    def _declare_split(self, task: FlashTask, splits: int) -> Split:
        """Buffers for the partial results of ``splits`` shares of the keys."""
        planner, queries = self.planner, self.stage.queries
        dim = f"{task.over}_splits"
        planner.fixed[dim] = splits

        def declare(hint: str, axes: frozenset[str]) -> str:
            name = planner._free_name(hint)
            dims = (*planner._order(queries), dim, *planner._order(axes - queries))
            planner.context.buffers[name] = Buffer(name, dims, DType.FLOAT32, "temporary")
            return name

        parts = tuple(
            declare(f"{name}_shares", value.axes - {task.over}) for name, value in task.outputs
        )
        total = declare("total_shares", frozenset())
        rescaled = isinstance(task.form, Rescaled)
        return Split(dim, parts, total, declare("m_shares", frozenset()) if rescaled else None)

    def _merge(self, task: FlashTask, split: Split) -> None:
        """Kernels that bring the shares together."""
        planner = self.planner
        values = tuple(
            Ref(name, value.axes - {task.over}, Kind.REAL) for name, value in task.outputs
        )
        outputs, lse = merged(split, task.form, values, self.stage.queries)
        merges = [(name, value) for (name, _), value in zip(task.outputs, outputs, strict=True)]
        if task.lse is not None:
            merges.append((task.lse, lse))
        for name, value in merges:
            buffer = planner.context.buffers[name]
            planner._compute(name, value, buffer.dims, "it merges the shares of the keys")

    def _with_statistics(self, form: TwoPass) -> Rescaled | Plain:
        """The normaliser with its statistics in buffers that kernels before it fill."""
        planner, stage = self.planner, self.stage
        known: dict[Expr, Expr] = {}
        for name, reduction in form.statistics:
            value = written(substitute(reduction, known), stage.score)
            free = planner._free_name(name)
            ref = planner._store(free, value, None, "temporary", f"the weights need it: {name}")
            known[Ref(name, reduction.axes, reduction.kind)] = ref
        return _each(form.then, lambda expr: substitute(expr, known))

    def _task(
        self,
        form: Rescaled | Plain,
        outputs: tuple[tuple[str, Expr], ...],
        total: str | None,
        top: str | None,
    ) -> FlashTask:
        planner, stage, block = self.planner, self.stage, self.block

        def ready(expr: Expr) -> Expr:
            return planner.prepared(expr, block, stage.over, inside=True)

        mask = None if stage.mask is None else ready(stage.mask)
        ranges = key_ranges(mask, stage.over, block, planner.context.masks)
        queries = planner._order(stage.queries)
        return FlashTask(
            name=planner._kernel_name(stage.outputs[0].name if stage.outputs else "lse"),
            over=stage.over,
            block=block,
            queries=queries,
            score=ready(stage.score),
            mask=mask,
            ranges=ranges,
            form=_each(form, ready),
            sink=None if stage.sink is None else ready(stage.sink),
            gain=None if stage.gain is None else ready(stage.gain),
            outputs=tuple((name, ready(value)) for name, value in outputs),
            lse=stage.lse,
            total=total,
            top=top,
            about=f"attention over {stage.over}: {planner.findings[-1]}",
        )

    # ------------------------------------------------------------------------------- results

    def _declare_outputs(self) -> tuple[tuple[str, Expr], ...]:
        outputs = []
        for made, ref in zip(self.stage.outputs, self.stage.results, strict=False):
            self._declare_result(made.name, ref.axes, None)
            outputs.append((made.name, made.value))
        return tuple(outputs)

    def _declare_result(self, name: str, axes: frozenset[str], dtype: DType | None) -> None:
        planner = self.planner
        output = next((o for o in planner.mixer.outputs if o.name == name), None)
        direct = output is not None and frozenset(output.dims) == axes
        dims = output.dims if output is not None and direct else planner._order(axes)
        role: OneOf["output", "temporary"] = "output" if direct else "temporary"
        planner.context.buffers[name] = Buffer(name, dims, dtype or planner.dtype, role)
        planner.names[name] = Ref(name, axes, Kind.REAL)

    def _declare_statistics(self, form: Rescaled | Plain) -> tuple[str | None, str | None]:
        """Buffers for what the weights are computed from, where they are wanted as a value."""
        if self.stage.weights is None:
            return None, None
        names: list[str | None] = [None, None]
        wanted = ("total", "top") if isinstance(form, Rescaled) else ("total",)
        for place, hint in enumerate(wanted):
            name = self.planner._free_name(hint)
            self._declare_result(name, self.stage.queries, DType.FLOAT32)
            names[place] = name
        return names[0], names[1]

    def _weights(self, task: FlashTask) -> None:
        """The normalised weights as a value: the score once more, against the row's statistics."""
        planner, stage, form = self.planner, self.stage, task.form
        name = stage.weights
        assert name is not None
        total = Ref(task.total or "", stage.queries, Kind.REAL)
        match form:
            case Rescaled():
                top = Ref(task.top or "", stage.queries, Kind.REAL)
                exponent = in_base_two(written(form.exponent, task.score))
                value: Expr = call("exp2", call("sub", exponent, top))
                if form.factor != Literal(1):
                    value = call("mul", written(form.factor, task.score), value)
                denominator = _with_total(form.denominator, total, call("exp2", top))
            case Plain():
                value = written(form.weight, task.score)
                denominator = _with_total(form.denominator, total, Literal(1.0))
        visible: Expr = call("ne", denominator, 0.0)
        if task.mask is not None:
            visible = call("and", task.mask, visible)
        if denominator != Literal(1.0):
            value = call("div", value, denominator)
        value = fold_constants(call("where", visible, value, 0.0), planner.params)
        output = next((o for o in planner.mixer.outputs if o.name == name), None)
        dims = output.dims if output is not None else None
        role: OneOf["output", "temporary"] = "temporary" if output is None else "output"
        made = planner._store(name, value, dims, role, "the weights as a value")
        planner.names[name] = Ref(made.name, stage.queries | {stage.over}, Kind.REAL)


def _each(form: Rescaled | Plain, change: Callable[[Expr], Expr]) -> Rescaled | Plain:
    """The normaliser with its expressions changed."""
    denominator = change(form.denominator)
    match form:
        case Rescaled():
            exponent, factor = change(form.exponent), change(form.factor)
            return replace(form, exponent=exponent, factor=factor, denominator=denominator)
        case Plain():
            return replace(form, weight=change(form.weight), denominator=denominator)


def _with_total(expr: Expr, total: Expr, scale: Expr) -> Expr:
    def change(node: Expr) -> Expr:
        if isinstance(node, Ref) and node.name in ("total", "scale"):
            return total if node.name == "total" else scale
        return rebuild(node, change)

    return change(expr)


def make_planner(mixer: Mixer, sizes: Mapping[str, int], dtype: DType, splits: int = 1) -> Planner:
    """A planner with the facts that the mixer's declarations give."""
    roles = dim_roles(mixer, sizes)
    lengths = {d: n for t in mixer.tables for d, n in zip(t.dims, t.shape, strict=True)}
    fixed = {d: lengths.get(d, sizes.get(d, 64)) for d in roles.features}
    params = _fixed_params(mixer, fixed)
    given = {
        i.name: Buffer(i.name, i.dims, _input_dtype(i.dtype, i.kind, dtype), "input")
        for i in mixer.inputs
    }
    tables = {
        t.name: Buffer(t.name, t.dims, _KIND_DTYPE.get(t.kind, DType.FLOAT32), "table")
        for t in mixer.tables
    }
    masks = facts_of(mixer, {n: float(v) for n, v in params.items()})
    context = Context(
        fixed,
        params,
        dtype,
        {**given, **tables},
        equal=equal_lengths(mixer),
        heads=frozenset(mixer.heads),
        masks=masks,
    )
    return Planner(mixer, sizes, params, dtype, roles, context, fixed, splits=splits)


def _input_dtype(declared: str | None, kind: Kind, dtype: DType) -> DType:
    if kind is Kind.REAL:
        return dtype if declared is None else DType(declared)
    return DType(declared) if declared in ("int64", "int32") else _KIND_DTYPE[kind]


def _fixed_params(mixer: Mixer, sizes: Mapping[str, int]) -> dict[str, Number]:
    """The params that compile time knows; one that depends on run-time sizes is written out."""
    fixed: dict[str, Number] = {}
    for param in mixer.params:
        if param.runtime:
            continue
        try:
            fixed[param.name] = evaluate_host(param.value, sizes, fixed)
        except KeyError:
            continue
    return fixed
