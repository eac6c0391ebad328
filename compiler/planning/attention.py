"""The kernels of one attention: statistics, tables and shares around the pass itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal as OneOf

from ...ir.expression import Expr, Kind, Literal, Ref, call
from ...ir.mixer import Attention
from ...ir.normaliser import Plain, Rescaled, TwoPass
from ...ir.plan import Buffer
from ...ir.rewriting import substitute, with_names
from ...ir.roles import query_axis
from ...ir.task import AttentionTask, BlockTable, BlockTableTask, Split
from ...ir.tile import DType
from ..analysis.distances import Distances
from ..analysis.masks.ranges import key_ranges, needs_block_table
from ..analysis.normaliser import classify
from ..passes.fold_constants import fold_constants
from ..schedules.one_pass import written
from ..schedules.split import merged
from .plan_builder import PlanBuilder
from .stretches import with_lists


class AttentionPlan:
    """The kernels of one attention: statistics first where one pass can't do, then the pass.

    ``dtype`` is that of results, the working precision where it is left out.
    """

    def __init__(self, builder: PlanBuilder, stage: Attention, dtype: DType | None = None) -> None:
        self.builder = builder
        self.dtype = dtype
        self.stage = stage
        self.form = classify(stage)
        self.block = query_axis(builder.mixer, stage)

    def run(self) -> None:
        """Plan it, and make its results known to later stages."""
        builder = self.builder
        stage = self.stage = self._with_distances()
        form = self.form
        if isinstance(form, TwoPass):
            builder.findings.append(f"two passes: {form.reason}")
            form = self._with_statistics(form)
        else:
            builder.findings.append(f"one pass: {form.reason}")
        outputs = self._declare_outputs()
        if stage.lse is not None:
            self._declare_result(stage.lse, stage.queries, DType.FLOAT32)
        row_sum, row_max = self._declare_statistics(form)
        task = self._task(form, outputs, row_sum, row_max)
        splits = 1 if stage.weights is not None else builder.splits
        if splits > 1:
            split = self._declare_split(task, splits)
            task = replace(task, split=split, name=f"{task.name}_shares")
        listed = with_lists(builder, task)
        table = None if listed else self._declare_table(task)
        builder.tasks.append(listed or replace(task, table=table))
        if task.split is not None:
            self._merge(task, task.split)
        if stage.weights is not None:
            self._weights(task)

    def _with_distances(self) -> Attention:
        """The stage, its score's costly terms of the distance alone computed once per distance.

        Not where the keys are shared out: few queries meet most distances once.
        """
        builder, stage = self.builder, self.stage
        if builder.splits > 1:
            return stage
        dim = builder.free_dim(f"{self.block}_to_{stage.over}")
        distances = Distances(self.block, stage.over, dim)

        def store(term: Expr, part: Expr) -> Ref:
            if dim not in builder.lengths:
                builder.add_dim(dim, distances.count)
            i, j = self.block.lower(), stage.over.lower()
            reason = f"it depends on {i} - {j} alone: computed once for each distance"
            called = builder.context.names.get(part) or builder.temporary_name(term)
            name = builder.free_name(f"{called.removesuffix('_made')}_by_distance")
            return builder.store(name, term, None, "temporary", reason)

        return replace(stage, score=distances.replaced(stage.score, store))

    def _declare_table(self, task: AttentionTask) -> BlockTable | None:
        """A block table, where the mask's bounds leave too much to visit: its task goes before."""
        builder = self.builder
        if task.mask is None or not needs_block_table(task.ranges):
            return None
        dims = builder.order(task.mask.axes - {task.block, task.over})
        about = task.outputs[0][0] if task.outputs else self.stage.results[0].name
        starts = builder.free_name(f"{about}_blocks")
        counts = builder.free_name(f"{about}_block_count")
        blocks = [builder.free_dim(f"{dim}_blocks") for dim in (task.block, task.over)]
        table = BlockTable(starts, counts, dims, task.block, task.over, *blocks)
        builder.block_counts |= {table.row_blocks: task.block, table.key_blocks: task.over}
        rows = (*dims, table.row_blocks)
        for name, shape in ((starts, (*rows, table.key_blocks)), (counts, rows)):
            builder.context.buffers[name] = Buffer(name, shape, DType.INT32, "temporary")
        reason = "the mask has terms that give no bound on the keys"
        builder.findings.append(f"a table of visible blocks: {reason}")
        about = f"{starts}: blocks of {task.over} with anything visible to a block of rows"
        name = builder.kernel_name(starts)
        builder.tasks.append(BlockTableTask(name, table, task.mask, task.ranges, about, reason))
        return table

    def _declare_split(self, task: AttentionTask, splits: int) -> Split:
        """Buffers for the partial results of ``splits`` shares of the keys."""
        builder, queries = self.builder, self.stage.queries
        dim = f"{task.over}_splits"
        builder.fixed[dim] = splits

        def declare(hint: str, axes: frozenset[str]) -> str:
            name = builder.free_name(hint)
            dims = (*builder.order(queries), dim, *builder.order(axes - queries))
            builder.context.buffers[name] = Buffer(name, dims, DType.FLOAT32, "temporary")
            return name

        parts = tuple(
            declare(f"{name}_shares", value.axes - {task.over}) for name, value in task.outputs
        )
        row_sum = declare("row_sum_shares", frozenset())
        if not isinstance(task.form, Rescaled):
            return Split(dim, parts, row_sum, None)
        return Split(dim, parts, row_sum, declare("row_max_shares", frozenset()))

    def _merge(self, task: AttentionTask, split: Split) -> None:
        """Kernels that bring the shares together."""
        builder = self.builder
        values = tuple(
            Ref(name, value.axes - {task.over}, Kind.REAL) for name, value in task.outputs
        )
        outputs, lse = merged(split, task.form, values, self.stage.queries)
        merges = [(name, value) for (name, _), value in zip(task.outputs, outputs, strict=True)]
        if task.lse is not None:
            merges.append((task.lse, lse))
        for name, value in merges:
            buffer = builder.context.buffers[name]
            builder.compute(name, value, buffer.dims, "it merges the shares of the keys")

    def _with_statistics(self, form: TwoPass) -> Rescaled | Plain:
        """The normaliser with its statistics in buffers that kernels before it fill."""
        builder, stage = self.builder, self.stage
        known: dict[Expr, Expr] = {}
        for name, reduction in form.statistics:
            value = written(substitute(reduction, known), stage.score)
            free = builder.free_name(name)
            ref = builder.store(free, value, None, "temporary", f"the weights need it: {name}")
            known[Ref(name, reduction.axes, reduction.kind)] = ref
        return _each(form.then, lambda expr: substitute(expr, known))

    def _task(
        self,
        form: Rescaled | Plain,
        outputs: tuple[tuple[str, Expr], ...],
        row_sum: str | None,
        row_max: str | None,
    ) -> AttentionTask:
        builder, stage, block = self.builder, self.stage, self.block

        def ready(expr: Expr) -> Expr:
            return builder.materialised(expr, block, stage.over, inside=True)

        unmasked = stage.mask is None or stage.mask == Literal(True)
        mask = None if unmasked or stage.mask is None else ready(stage.mask)
        ranges = key_ranges(mask, stage.over, block, builder.context.masks)
        values = frozenset[str]().union(*(value.axes for _, value in outputs))
        return AttentionTask(
            name=builder.kernel_name(stage.outputs[0].name if stage.outputs else "lse"),
            over=stage.over,
            block=block,
            queries=builder.order(stage.queries),
            values=builder.order(values - stage.queries - {stage.over}),
            score=ready(stage.score),
            mask=mask,
            ranges=ranges,
            form=_each(form, ready),
            sink=None if stage.sink is None else ready(stage.sink),
            gain=None if stage.gain is None else ready(stage.gain),
            outputs=tuple((name, ready(value)) for name, value in outputs),
            lse=stage.lse,
            row_sum=row_sum,
            row_max=row_max,
            about=f"attention over {stage.over}: {builder.findings[-1]}",
            reason="the attention itself",
        )

    # ------------------------------------------------------------------------------- results

    def _declare_outputs(self) -> tuple[tuple[str, Expr], ...]:
        outputs = []
        for made, ref in zip(self.stage.outputs, self.stage.results, strict=False):
            self._declare_result(made.name, ref.axes, self.dtype)
            outputs.append((made.name, made.value))
        return tuple(outputs)

    def _declare_result(self, name: str, axes: frozenset[str], dtype: DType | None) -> None:
        builder = self.builder
        output = next((o for o in builder.mixer.outputs if o.name == name), None)
        direct = output is not None and frozenset(output.dims) == axes
        dims = output.dims if output is not None and direct else builder.order(axes)
        role: OneOf["output", "temporary"] = "output" if direct else "temporary"
        if builder.asks_for_float32(name):
            dtype = DType.FLOAT32
        builder.context.buffers[name] = Buffer(name, dims, dtype or builder.dtype, role)
        builder.names[name] = Ref(name, axes, Kind.REAL)

    def _declare_statistics(self, form: Rescaled | Plain) -> tuple[str | None, str | None]:
        """Buffers for what the weights are computed from, where they are wanted as a value."""
        if self.stage.weights is None:
            return None, None
        names: list[str | None] = [None, None]
        wanted = ("row_sum", "row_max") if isinstance(form, Rescaled) else ("row_sum",)
        for place, hint in enumerate(wanted):
            name = self.builder.free_name(hint)
            self._declare_result(name, self.stage.queries, DType.FLOAT32)
            names[place] = name
        return names[0], names[1]

    def _weights(self, task: AttentionTask) -> None:
        """The normalised weights as a value: the score once more, against the row's statistics."""
        builder, stage, form = self.builder, self.stage, task.form
        name = stage.weights
        assert name is not None
        row_sum = Ref(task.row_sum or "", stage.queries, Kind.REAL)
        match form:
            case Rescaled():
                row_max = Ref(task.row_max or "", stage.queries, Kind.REAL)
                exponent = call("mul", written(form.exponent, task.score), math.log2(math.e))
                value: Expr = call("exp2", call("sub", exponent, row_max))
                if form.factor != Literal(1):
                    value = call("mul", written(form.factor, task.score), value)
                denominator = with_names(
                    form.denominator, {"total": row_sum, "scale": call("exp2", row_max)}
                )
            case Plain():
                value = written(form.weight, task.score)
                denominator = with_names(form.denominator, {"total": row_sum})
        visible: Expr = call("ne", denominator, 0.0)
        if task.mask is not None:
            visible = call("and", task.mask, visible)
        if denominator != Literal(1.0):
            value = call("div", value, denominator)
        value = fold_constants(call("where", visible, value, 0.0), builder.params)
        made = builder.result(name, value, "the weights as a value")
        builder.names[name] = Ref(made.name, stage.queries | {stage.over}, Kind.REAL)


def _each(form: Rescaled | Plain, change: Callable[[Expr], Expr]) -> Rescaled | Plain:
    """The normaliser with its expressions changed."""
    denominator = change(form.denominator)
    match form:
        case Rescaled():
            exponent, factor = change(form.exponent), change(form.factor)
            return replace(form, exponent=exponent, factor=factor, denominator=denominator)
        case Plain():
            return replace(form, weight=change(form.weight), denominator=denominator)
