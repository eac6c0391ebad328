"""Block sizes and other knobs of a plan, bound for a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from ...ir.expression import TRANSCENDENTAL, Literal, Read
from ...ir.expression import Reduce as Summed
from ...ir.knob import Knob, check_configuration
from ...ir.mixer import Attention, Mixer, Recurrence
from ...ir.optional import expressions
from ...ir.plan import Kernel, Plan
from ...ir.recurrence_tasks import ChunkTask
from ...ir.rewriting import every_node, walk
from ...ir.targets import PORTABLE, CpuTarget
from ...ir.task import AttentionTask
from ...ir.tile import (
    Cast,
    Constant,
    Dot,
    Elementwise,
    For,
    Load,
    Program,
    Range,
    Reduce,
    Store,
    Tile,
    all_ops,
    made_by,
    operands,
)
from ...ir.transform import FFT_TERMS, may_have_fourier_sums
from .nest import VECTORS_AT_ONCE
from .operand_forms import TILE_DOTS, is_paired
from .products import DOT_ROWS, DOT_VECTORS, vectors_held
from .rows import ROWS_AT_ONCE

BLOCK_ROWS = Knob("block_rows", (16, 32, 64, 128), 64, "queries that share a pass over the keys")
BLOCK_KEYS = Knob(
    "block_keys", (16, 32, 64, 128, 256), 64, "a tile of scores has to stay in the L1"
)
# One query does little with a key: tiles stay small, so that they never leave the first cache.
_KEYS_OF_ONE_ROW, _FEW_KEYS = 32, 16
NARROWEST = 16  # columns of a state that a program is worth starting for
_NARROW = 32  # columns of a state that a program takes where it shares no work with others
_FEWEST_ROWS = 8  # of a batch: with them, weights are read fast enough for all multipliers
_HELD = 3 / 4  # of the L1, by states: it has room for rows then
_OF_NUMBERS = (Constant, Range, Elementwise, Cast, Reduce)
_OF_ELEMENTS = (Load, Store, For)  # and these take a tile in any order of its axes
_LONG = 128  # rows that share what a block of keys costs beside products by tiles
_ROUNDS = 8  # of programs for each core: the last ones are waited for
_WIDEST = 1 << 16  # elements of a tile that the L2 has room for
# A state that stays in the L1 costs two or three products a row and entry, and no chunk fewer.
BY_ROWS = Knob("by_rows", (0, 1), 1, "a recurrence row by row, or by chunks of block_keys rows")
# Declared beside what writes the code that they change; here the tiles' own.
_OF_LAUNCH = (DOT_ROWS, DOT_VECTORS, TILE_DOTS, VECTORS_AT_ONCE, ROWS_AT_ONCE)
# Five products a pair instead of seven; but a program takes all rows of its heads.
ONE_SWEEP = Knob("one_sweep", (0, 1), 1, "gradients of queries and keys by one look at each pair")
# A kernel's passes cost as much as so many lags of a sum; the largest choice is never reached.
FFT_LAGS = Knob("fft_lags", (1, 32, 128, 1 << 30), 32, "lags from which a sum is a task")
_KNOBS = (BLOCK_ROWS, BLOCK_KEYS, BY_ROWS, ONE_SWEEP, FFT_LAGS, FFT_TERMS, *_OF_LAUNCH)


def knobs(target: CpuTarget) -> tuple[Knob, ...]:
    """The knobs of every kernel, with the defaults of a target."""
    if target.registers < 32:
        few = replace(DOT_ROWS, default=6)
        return (BLOCK_ROWS, BLOCK_KEYS, few, DOT_VECTORS, VECTORS_AT_ONCE)
    tiles = (TILE_DOTS,) if target.tile_dot else ()
    return (BLOCK_ROWS, BLOCK_KEYS, DOT_ROWS, DOT_VECTORS, *tiles, VECTORS_AT_ONCE)


def knobs_of_stages(mixer: Mixer) -> tuple[Knob, ...]:
    """Further knobs of a mixer with a recurrence, or with attentions that may share their pairs."""
    walks = any(isinstance(stage, Recurrence) for stage in mixer.stages)
    attends = sum(isinstance(stage, Attention) for stage in mixer.stages)
    of_rows = (BY_ROWS, ROWS_AT_ONCE) if walks else ()
    of_sums: tuple[Knob, ...] = (FFT_LAGS,) if _has_lags(mixer) else ()
    if may_have_fourier_sums(expressions(mixer)):
        of_sums = (*of_sums, FFT_TERMS)
    return (*of_rows, *of_sums, ONE_SWEEP) if attends > 1 else (*of_rows, *of_sums)


def _has_lags(mixer: Mixer) -> bool:
    """Whether a sum reads a factor at places that move along with what it sums over."""
    sums = (n for n in every_node(expressions(mixer)) if isinstance(n, Summed) and n.op == "sum")
    reads = ((s, n) for s in sums for n in walk(s.x) if isinstance(n, Read))
    return any(not i.axes.isdisjoint(s.over) and len(i.axes) > 1 for s, n in reads for _, i in n.at)


def keeps_cores_busy(plan: Plan, sizes: Mapping[str, int], cores: int) -> bool:
    """Whether attentions that are one sweep are done sooner than by two: whole rounds of programs
    at 5 products a pair, against 7 in pieces that any number of cores can share."""
    grids = [k.program.grid for k in plan.kernels if _is_one_sweep(k.program)]
    counts = [prod(sizes.get(axis.dim, cores) for axis in grid) for grid in grids]
    return all(5 * cores * -(-programs // cores) <= 7 * programs for programs in counts)


def _is_one_sweep(program: Program) -> bool:
    return any(isinstance(op, Store) and op.add for op in all_ops(program.body))


def refusal(configuration: Mapping[str, int], target: CpuTarget) -> str | None:
    """Why a configuration is not worth a trial on a target; None if it is."""
    held = vectors_held(configuration)
    if held > target.registers:
        return f"a product would hold {held} vectors, of {target.registers} registers"
    return None


def defaults(target: CpuTarget) -> dict[str, int]:
    """The default configuration for a target."""
    return {knob.name: knob.default for knob in knobs(target)}


def configure(
    plan: Plan,
    configuration: Mapping[str, int],
    short: Mapping[str, int] = {},
    l1_bytes: int = PORTABLE.l1_bytes,
) -> Plan:
    """The plan with its tiles and launch settings as a configuration has them.

    ``short``: blocks of rows for dims that are shorter than the configuration's, see
    ``short_rows``. ``l1_bytes``: of the target, whose first cache states stay in.

    Raises:
        ArgumentError: a value that is none of its knob's choices.
    """
    check_configuration(_KNOBS, configuration)
    kernels = tuple(
        replace(kernel, program=_configured(kernel, configuration, short, plan, l1_bytes))
        for kernel in plan.kernels
    )
    return replace(plan, kernels=kernels).with_common_blocks()


def own_defaults(
    plan: Plan, target: CpuTarget, sizes: Mapping[str, int], cores: int
) -> dict[str, int]:
    """The knobs for which a plan has other defaults than its target, at the sizes of a call."""
    return {
        **long_blocks(plan, target, sizes, cores),
        **short_keys(plan, sizes),
        **narrow_states(plan, target),
    }


def short_rows(plan: Plan, sizes: Mapping[str, int]) -> dict[str, int]:
    """Blocks for the rows that a call has few of: 1 in decoding, 8 or 16; long ones are left out.

    So a length decides between four kernels at most, and never more.
    """
    tiled = {a.dim for k in plan.kernels for a in k.program.grid if a.tiled}
    tiled |= {dim for _, dim in plan.block_lengths}
    tiled -= {dim for dim, _ in plan.sizes}
    own = {dim: int(n.value) for dim, n in plan.lengths if isinstance(n, Literal)}
    sizes = {**own, **sizes}
    few = {d: sizes[d] for d in sorted(tiled) if 0 < sizes.get(d, 0) <= 16}
    return {d: 1 if size == 1 else 8 if size <= 8 else 16 for d, size in few.items()}


def short_keys(plan: Plan, sizes: Mapping[str, int]) -> dict[str, int]:
    """The knob ``block_keys`` of a call that has few keys, or one row to go through them."""
    walked = {dim for kernel in plan.kernels for dim in _walked(kernel.program)}
    lengths = [sizes[d] for d in walked - {dim for dim, _ in plan.sizes} if d in sizes]
    if lengths and max(lengths) <= _FEW_KEYS:
        return {BLOCK_KEYS.name: _FEW_KEYS}
    one = 1 in short_rows(plan, sizes).values()
    return {BLOCK_KEYS.name: _KEYS_OF_ONE_ROW} if one else {}


def long_blocks(
    plan: Plan, target: CpuTarget, sizes: Mapping[str, int] = {}, cores: int = 1
) -> dict[str, int]:
    """The knob ``block_rows`` where products go by tiles of registers, and cores have enough to do.

    They cost so little that turning keys or values round in each block shows: more rows share that.
    Sums beyond the L1 are read and written once for more keys (``block_keys``).
    """
    attends = [k.program for k in plan.kernels if k.schedule == AttentionTask.schedule]
    if not target.tile_dot or not any(_has_pairs(program, target) for program in attends):
        return {}
    known = [p.with_blocks({a.dim: _LONG for a in p.grid if a.tiled}) for p in attends]
    known = [p for p in known if all(axis.dim in sizes for axis in p.grid)]
    if any(_programs(program, sizes) < _ROUNDS * cores for program in known):
        return {}
    sums = max(_carried(program) for program in attends)
    keys = {BLOCK_KEYS.name: _LONG} if 4 * sums > target.l1_bytes else {}
    return {BLOCK_ROWS.name: _LONG, **keys}


def _carried(program: Program) -> int:
    """The most elements that a loop at the top hands over in one value, for long blocks of rows."""
    values = [c.inner for op in program.body if isinstance(op, For) for c in op.carried]
    tiles = {tile.dim: tile for tile in program.tiles}
    sizes = {dim: _size(tile) if tile.whole else _LONG for dim, tile in tiles.items()}
    return max((prod(sizes[axis] for axis in value.axes) for value in values), default=0)


def chunks_pay(plan: Plan, target: CpuTarget, sizes: Mapping[str, int] = {}) -> bool:
    """Whether a plan's chunks are done sooner than rows one by one: their products go by tiles of
    registers, and there is no function of each entry of a row, as decays by entry need."""
    chunks = [k.program for k in plan.kernels if k.schedule == ChunkTask.schedule]
    lengths = [sizes[dim] for p in chunks for dim in _walked(p) if dim in sizes]
    if not target.tile_dot or not chunks or any(length <= BLOCK_KEYS.default for length in lengths):
        return False
    unfit = any(_has_functions_of_entries(p) for p in chunks)
    return not unfit and all(_has_pairs(p, target) for p in chunks)


def _has_functions_of_entries(program: Program) -> bool:
    whole = {tile.dim for tile in program.tiles if tile.whole}
    calls = (op for op in all_ops(program.body) if isinstance(op, Elementwise))
    return any(op.fn in TRANSCENDENTAL and op.out.axes & whole for op in calls)


def _has_pairs(program: Program, target: CpuTarget) -> bool:
    return any(isinstance(op, Dot) and is_paired(target, op) for op in all_ops(program.body))


def narrow_states(plan: Plan, target: CpuTarget) -> dict[str, int]:
    """The knobs ``block_rows`` and ``rows_at_once`` of walks over rows, where not the usual ones.

    Columns are few where no function of a row is repeated in each block of them: a vector may stay
    in registers, and multipliers of half a vector are busy with two. Wide ones wait for the state
    to be loaded and stored, which several rows at once share.
    """
    walks = [k for k in plan.kernels if any(isinstance(op, For) for op in k.program.body)]
    if target.registers < 32 or not walks:  # AVX2: as many columns keep its multipliers busy
        return {}
    blocks = [_narrow(k.program, target) if k.schedule == "loop" else None for k in walks]
    found = [block for block in blocks if block is not None]
    own = {BLOCK_ROWS.name: max(found)} if len(found) == len(blocks) else {}
    together = target.has_wide_multipliers and any(k.schedule == "loop" for k in walks)
    return {**own, ROWS_AT_ONCE.name: 2} if together else own


def _narrow(program: Program, target: CpuTarget) -> int | None:
    """How many columns; None: all of them."""
    tiled = {a.dim for a in program.grid if a.tiled and program.tile(a.dim).size is not None}
    loops = tuple(op for op in program.body if isinstance(op, For))
    for op in all_ops(loops):
        is_function = isinstance(op, Elementwise) and op.fn in TRANSCENDENTAL
        if is_function and any(out.axes and not out.axes & tiled for out in made_by(op)):
            return None
    states = [c.inner.axes for loop in loops for c in loop.carried]
    beside = [axes - tiled for axes in states if axes & tiled]
    if not any(beside):
        return None
    vectors = sum(prod(_size(program.tile(dim)) for dim in dims) for dims in beside)
    if 2 * vectors <= target.registers:
        return NARROWEST
    # Rows that wait for their own sums need more vectors to wait with.
    waits = target.has_wide_multipliers or any(_waits_for_sums(loop) for loop in loops)
    return None if waits else _NARROW


def _waits_for_sums(loop: For) -> bool:
    """Whether what a turn hands over depends on a sum of what it was handed: a correction."""
    handed, summed = {c.inner.name for c in loop.carried}, set[str]()
    for op in all_ops(loop.body):
        read = {value.name for value in operands(op)}
        made = {value.name for value in made_by(op)}
        if isinstance(op, For):
            made |= {c.inner.name for c in op.carried}
        if read & summed or (isinstance(op, (Reduce, Dot)) and read & handed):
            summed |= made
        if read & handed:
            handed |= made
    return any(value.name in summed for value in loop.yields)


def _walked(program: Program) -> set[str]:
    """Dims that a program goes through by blocks: rows of one program may be keys of another."""
    rows = {axis.dim for axis in program.grid if axis.tiled}
    return {t.dim for t in program.blocks if not t.whole} - rows


def fill_cores(plan: Plan, sizes: Mapping[str, int], cores: int) -> Plan:
    """A configured plan with smaller blocks of states that rows walk, where programs are fewer than
    ``cores``: columns of a state, or rows of a batch, do not wait for each other, and none is made
    twice.

    ``sizes`` are those of a call; without one of the grid's, the plan stays as it is.
    """
    kernels = tuple(
        replace(kernel, program=_filling(kernel.program, sizes, cores))
        if kernel.schedule == "loop"
        else kernel
        for kernel in plan.kernels
    )
    return replace(plan, kernels=kernels).with_common_blocks()


def _filling(program: Program, sizes: Mapping[str, int], cores: int) -> Program:
    if any(axis.dim not in sizes for axis in program.grid):
        return program
    while 0 < _programs(program, sizes) < cores:
        blocks = {axis.dim: program.tile(axis.dim).block for axis in program.grid if axis.tiled}
        halves = {d: b // 2 for d, b in blocks.items() if b % (2 * _narrowest(program, d)) == 0}
        halves = {d: h for d, h in halves.items() if h < sizes[d] and program.admits(d, h)}
        if not halves:
            break
        widest = max(halves, key=halves.__getitem__)
        program = program.with_blocks({widest: halves[widest]})
    return program


def _narrowest(program: Program, dim: str) -> int:
    return _FEWEST_ROWS if program.tile(dim).size is None else NARROWEST


def _programs(program: Program, sizes: Mapping[str, int]) -> int:
    blocks = [program.tile(axis.dim).block if axis.tiled else 1 for axis in program.grid]
    return prod(-(-sizes[axis.dim] // b) for axis, b in zip(program.grid, blocks, strict=True))


def _configured(
    kernel: Kernel,
    configuration: Mapping[str, int],
    short: Mapping[str, int],
    plan: Plan,
    l1_bytes: int,
) -> Program:
    program, sizes = kernel.program, dict(plan.sizes)
    tiled = {axis.dim for axis in program.grid if axis.tiled}
    # A buffer has room for a block of these, which was chosen for it.
    held = {dim for buffer in program.buffers.values() for dim in buffer.dims}
    own = {dim for block, dim in plan.block_lengths if block in held}
    wanted = {t.dim: configuration["block_keys"] for t in program.tiles}
    wanted |= {dim: configuration["block_rows"] for dim in tiled}
    blocks = {d: min(b, _whole_vectors(sizes[d])) if d in sizes else b for d, b in wanted.items()}
    blocks |= {t.dim: _whole_block(program, t) for t in program.tiles if t.whole}
    blocks |= {dim: min(blocks[dim], program.tile(dim).block) for dim in own}
    blocks |= {dim: block for dim, block in short.items() if dim in tiled | own}
    blocks |= dict.fromkeys(_columns(program, blocks), _whole_vectors(1))
    if kernel.schedule == "convolution":  # all that a program holds is its channels' rows
        blocks |= {dim: min(blocks[dim], program.tile(dim).block) for dim in tiled}
    if kernel.schedule == "loop":
        blocks |= {dim: _kept(program, dim, blocks, l1_bytes) for dim in tiled if blocks[dim] > 16}
    launch = tuple((knob.name, configuration.get(knob.name, knob.default)) for knob in _OF_LAUNCH)
    return replace(_narrowed(program.with_blocks(blocks)), launch=launch)


def _whole_block(program: Program, tile: Tile) -> int:
    """The block of a dim that a tile holds whole: padded to vectors, unless it is short and always
    lies beside another dim that is not, which can then be the one along vectors."""
    if not _is_short(tile) or any(t.like == tile.dim for t in program.tiles):
        return _whole_vectors(_size(tile))
    long = {t.dim for t in program.tiles if not _is_short(t)}
    for op in all_ops(program.body):
        having = [v for v in (*made_by(op), *operands(op)) if tile.dim in v.axes]
        moved = (*made_by(op), op.value) if isinstance(op, Store) else made_by(op)
        of_reals = [v for v in moved if tile.dim in v.axes and v.dtype.is_float]
        if any(not v.axes & long for v in of_reals):
            return _whole_vectors(_size(tile))
        if having and not isinstance(op, (*_OF_NUMBERS, *_OF_ELEMENTS)):
            return _whole_vectors(_size(tile))
    return max(_size(tile), 1)  # an empty axis has a block too


def _size(tile: Tile) -> int:
    return tile.block if tile.size is None else tile.size


def _is_short(tile: Tile) -> bool:
    return tile.whole and _size(tile) < _whole_vectors(1)


def _columns(program: Program, blocks: Mapping[str, int]) -> set[str]:
    """Dims that have to fill vectors: the last of a dot's result, where none of them would."""
    order = [t.dim for t in program.tiles]
    results = [op.out.axes for op in all_ops(program.body) if isinstance(op, Dot)]
    cut = {t.dim: t.like or t.dim for t in program.tiles}
    narrow = [axes for axes in results if all(blocks[cut[a]] % _whole_vectors(1) for a in axes)]
    return {cut[max(axes, key=order.index)] for axes in narrow}


def _kept(program: Program, dim: str, blocks: Mapping[str, int], l1_bytes: int) -> int:
    """The block of a dim with which the states that a loop walks rows with stay in the L1.

    It is one that the program admits: where bounds were left out, no block reaches past the dim.
    """
    states = [c.inner for op in program.body if isinstance(op, For) for c in op.carried]
    beside = sum(prod(blocks[a] for a in v.axes - {dim}) for v in states if dim in v.axes)
    held = int(_HELD * l1_bytes) // 4
    most = max(16, min(blocks[dim], held // max(beside, 1)))
    return next(b for b in range(most // 16 * 16, 0, -16) if program.admits(dim, b))


def _narrowed(program: Program) -> Program:
    """The longest blocks halved, as far as they may be, until no stored tile is too wide.

    What functions of numbers make is no tile of its own: it is made where it is read.
    """
    stored = (op for op in all_ops(program.body) if not isinstance(op, _OF_NUMBERS))
    for axes in dict.fromkeys(v.axes for op in stored for v in made_by(op)):
        while prod(program.tile(a).block for a in axes) > _WIDEST:
            cut = {t.like or t.dim for t in program.tiles if t.dim in axes and not t.whole}
            blocks = {dim: program.tile(dim).block for dim in sorted(cut)}
            halves = {d: b // 2 for d, b in blocks.items() if b % 32 == 0}
            halves = {d: half for d, half in halves.items() if program.admits(d, half)}
            if not halves:
                break
            longest = max(halves, key=halves.__getitem__)
            program = program.with_blocks({longest: halves[longest]})
    return program


def _whole_vectors(size: int) -> int:
    """Padded to vectors; no power of two is needed here."""
    return max(16, -(-size // 16) * 16)
