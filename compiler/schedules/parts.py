"""What the parts of a chunk task start from: kernels, warps, pipeline stages, columns of a state.

Measured by the model of a Hopper's machine code on the library at D = 64 and 128, in 16 bits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ...ir.expression import TRANSCENDENTAL, Call
from ...ir.knob import Knob
from ...ir.optional import expressions
from ...ir.plan import Plan
from ...ir.recurrence_tasks import ChunkTask
from ...ir.rewriting import walk
from ...ir.targets import Target
from ...ir.task import PartTask
from ...ir.tile import For, Program
from ...ir.transform import FFT_TERMS, may_have_fourier_sums
from ..tiles.context import Context
from .chunk import wide_rows
from .defaults import chunk_choices
from .estimates import holds, prologue_registers
from .held import held_blocks

CHUNK_KERNELS = Knob(
    "chunk_kernels",
    (1, 2, 3),
    1,
    "what does not depend on the state, and what only reads it, for all chunks at once",
)
# What the tiles of a straight line would take at once, of a thread: many are free again before the
# last is made, and the library is clean up to here.
_LINE_REGISTERS = 470
_MORE_ROWS = 32  # of a chunk where a program holds a small part of a state
_BESIDE = 2  # programs that a multiprocessor has room for
_WIDE_LINE = 225  # the same where rows are loaded in float32
_WHOLE_LINE = 300  # where states are read along both axes, which takes more of each row


def chunk_kernels(task: ChunkTask, context: Context) -> int:
    """How many kernels the work of a task is dealt out to where nobody says.

    A triangle to solve and decays of each entry are a long chain in every turn of the walk, which
    does not depend on the state: apart, all chunks go through it at once. A scalar decay is a few
    instructions, which cost less than what is stored between two kernels. Nor does a state that a
    program holds whole leave the registers for what it would load, unless all decays of entries
    are made elsewhere; and in a backward pass few kernels are better than a short chain. Where
    products take factors from registers, the small ones of a chunk have theirs in every warp again:
    they are prepared with few warps, and the walk has more. A feature map with exponentials is a
    chain for each element of a row, in a walk that has no other warps to fill it, once for each
    part of the state: keys and queries after it are what a walk should read.
    """
    target = context.target
    if not isinstance(target, Target):
        return CHUNK_KERNELS.default
    alone = bool(task.tiled) and not context.wide
    apart = by_entry(task) or (alone and (task.corrected or _maps_features(task, context)))
    return 2 if context.dtype.is_narrow and apart else 1


def plan_knobs(plan: Plan) -> tuple[Knob, ...]:
    """The knobs that decide which kernels a plan has: ``lower`` takes them, by their names."""
    chunks = [task for task in plan.tasks if isinstance(task, ChunkTask)]
    parts = Counter(task.of.name for task in plan.tasks if isinstance(task, PartTask))
    of_sums = (FFT_TERMS,) if may_have_fourier_sums(expressions(plan.mixer)) else ()
    if not chunks and not parts:
        return of_sums
    return (replace(CHUNK_KERNELS, default=max(parts.values(), default=1)), *of_sums)


def _maps_features(task: ChunkTask, context: Context) -> bool:
    """Whether rows' channels go through exponentials and the like before states take them."""
    nodes = (node for value in task.row_values for node in walk(value))
    calls = (node for node in nodes if isinstance(node, Call) and node.fn in TRANSCENDENTAL)
    return any(call.axes & context.features for call in calls)


def by_entry(task: ChunkTask) -> bool:
    """Whether some state decays by entries of its key axis."""
    return any(form.key_axis in e.axes for form, _ in task.states for e in form.decays)


def with_part_launch(
    program: Program, task: ChunkTask, context: Context, shares: int = 1
) -> Program:
    """A part of a task as it runs best: fewest warps, since in each chunk all of them wait for
    each other; of a walk, as many columns of the state as its registers hold.

    Args:
        shares: in how many segments its rows could go for a machine to be busy, where heads are
            few. What can't go in segments goes in as many more programs as there are
            multiprocessors, with fewer columns each; a program with a small state takes more rows
            at a time.
    """
    if not context.dtype.is_narrow:
        return program
    parts = _parts(task, shares)
    if parts > 2 and not by_entry(task):
        program = program.with_blocks({task.over: _MORE_ROWS})
    if any(isinstance(op, For) and op.carried for op in program.body):
        return _walk(program, task, context, parts)
    line = [_with_warps(program, warps) for warps in (1, 2, 4, 8)]
    room = _LINE_REGISTERS if task.tiled else _WHOLE_LINE
    if context.wide and any(wide_rows(task, context)):
        room = _WIDE_LINE
    return next((one for one in line if prologue_registers(one) <= room), line[-1])


def _parts(task: ChunkTask, shares: int) -> int:
    """In how many more parts than registers ask for a walk's state goes: a program for each
    multiprocessor, where ``shares`` are as many as it has room for."""
    alone = task.segment is None and len(task.carrying) == 1 and task.tiled
    return max(shares // _BESIDE, 1) if alone else 1


def _walk(program: Program, task: ChunkTask, context: Context, parts: int) -> Program:
    if len(task.carrying) > 1 or not task.tiled:
        return program
    for held, launch, room in chunk_choices(0, 0, wide=False):
        blocks = held_blocks(task, context, held // parts)
        made = replace(program.with_blocks(blocks), launch=launch)
        if holds(made, room, context.target):
            return made
    return program


def _with_warps(program: Program, warps: int) -> Program:
    return replace(program, launch=tuple({**dict(program.launch), "num_warps": warps}.items()))
