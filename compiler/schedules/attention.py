"""The attention schedule: one pass over the keys for each block of rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ...ir.key_ranges import KeyRanges, Trend
from ...ir.knob import Knob
from ...ir.normaliser import Rescaled
from ...ir.targets import AnyTarget, Target
from ...ir.task import AttentionTask, Split
from ...ir.tile import BufferArgument, GridAxis, Program, SizeArgument, Value
from ..tiles.builder import Builder
from ..tiles.context import Context, Launch
from ..tiles.evaluation import TileEvaluator
from ..tiles.evaluator import Evaluator
from ..tiles.grid import place_grid
from ..tiles.key_blocks import LoopBody, Share, sweep
from . import one_pass
from .across import rows_in_turn
from .block_table import sweep_listed
from .defaults import attention_configurations
from .estimates import fits, has_room, registers
from .one_pass import store_from_one
from .space import Space
from .split import share_of

SPACE = Space(
    Knob(
        "block_rows",
        (16, 32, 64, 128, 256),
        64,
        "queries of a program share each block of keys that it loads",
    ),
    Knob(
        "block_keys", (16, 32, 64, 128), 64, "a score tile of rows x keys has to stay in registers"
    ),
)


def attention(task: AttentionTask, context: Context) -> Program:
    """The tile program of an attention.

    At the first configuration that fits the target, or at the leanest: the last; where products
    take factors from shared memory, which no warp then holds for itself, the one of the fewest
    registers.
    """
    leanest: Program | None = None
    for configuration in attention_configurations(context, task.block, task.over):
        made = flash(task, context.with_blocks(configuration.blocks), configuration.launch)
        if fits(made, context.target):
            return made
        if leanest is None or not _is_leaner(leanest, made, context.target):
            leanest = made
    assert leanest is not None
    return leanest


def _is_leaner(one: Program, other: Program, target: AnyTarget) -> bool:
    """Whether a program, and not the other, is what a target should have that neither fits."""
    if not isinstance(target, Target) or not target.products_from_shared:
        return False
    return has_room(one, target) and registers(one) < registers(other)


def flash(task: AttentionTask, context: Context, launch: Launch) -> Program:
    """The tile program of an attention, with the context's blocks."""
    builder = Builder(task.name)
    evaluator = TileEvaluator(builder, context)
    dims = (*task.queries, *task.values)
    if task.across:
        place_grid(evaluator, [d for d in dims if d != task.block], None)
    else:
        place_grid(evaluator, dims, task.block, descending=_later_rows_do_more(task.ranges))
    if task.split is not None:
        position = builder.grid_position(task.split.dim, f"{task.over.lower()}_share")
        builder.grid.append(GridAxis(task.split.dim, position))
        builder.place(task.split.dim, position)
        builder.scalar(SizeArgument(task.split.dim))
    for name in task.writes:
        buffer = context.buffers[name]
        builder.buffer(BufferArgument(name, buffer.dims, buffer.dtype, written=True))
    if task.across:
        with rows_in_turn(evaluator, task):
            _one_block(evaluator, task)
    else:
        _one_block(evaluator, task)
    return builder.finish(context.launch(launch), task.about)


def _one_block(evaluator: Evaluator, task: AttentionTask) -> None:
    """All that a block of rows sees."""
    rows = evaluator.tile_axes(task.queries)
    start = one_pass.start(evaluator, task, rows)
    state = _visit(evaluator, task, start, one_pass.body(evaluator, task, rows))
    if task.split is not None:
        evaluator.builder.comment("store this share")
        _store_share(evaluator, task.split, state, isinstance(task.form, Rescaled))
        return
    evaluator.builder.comment("normalise and store")
    one_pass.store(evaluator, task, state)


def _later_rows_do_more(ranges: KeyRanges) -> bool:
    """Whether the last rows see the most keys: all upper ends rise, and some row start is fixed."""
    return any(
        not conjunct.lower and any(b.trend is Trend.RISING for b in conjunct.upper)
        for conjunct in ranges.disjuncts
    )


def _visit(
    evaluator: Evaluator, task: AttentionTask, carried: Sequence[tuple[str, Value]], body: LoopBody
) -> tuple[Value, ...]:
    """Walk the keys: by ranges, or by a table where the mask gives none."""
    share: Share | None = None
    if task.split is not None:
        share = partial(share_of, evaluator, task.split)
    if task.table is not None:
        return sweep_listed(evaluator, task.table, task.mask, carried, body, share)
    return sweep(evaluator, task.over, task.ranges, task.mask, carried, body, share)


def _store_share(
    evaluator: Evaluator, split: Split, state: Sequence[Value], rescaled: bool
) -> None:
    """What a share of the keys gives, for the kernel that merges shares."""
    row_max, (row_sum, *sums) = (state[0], state[1:]) if rescaled else (None, state)
    for name, value in zip(split.outputs, sums, strict=True):
        store_from_one(evaluator, name, value)
    store_from_one(evaluator, split.row_sum, row_sum)
    if split.row_max is not None and row_max is not None:
        store_from_one(evaluator, split.row_max, row_max)
