"""What a configuration of a tile program asks of a GPU, before any compiler has seen it."""

from __future__ import annotations

from math import prod

from ...ir.targets import THREADS_PER_WARP, AnyTarget, CpuTarget, Target, threads_of
from ...ir.tile import (
    Combine,
    Dot,
    DType,
    Elementwise,
    For,
    Load,
    Op,
    Program,
    Reduce,
    Solve,
    Store,
    Value,
    all_ops,
    made_by,
    operands,
)

# Registers that leave room for addresses and, but where tensor cores read them from shared memory,
# for the factors of products.
REGISTER_LIMIT = 95
_OF_FACTORS = 32
# Where factors are all in shared memory and rows keep no maximum: clean at 160 and 176 in gradients
# of keys, queries and their positions (240 registers of a thread in all, and 255), spilling from
# 192.
_OF_SUMS = 176
# The same for what carries a state, of which a factor in registers is another copy in 16 bits: half
# as many again.
_BESIDE_FACTORS = REGISTER_LIMIT * 2 // 3
# What is loaded and made once, before the loops: measured on rotations of the queries, clean at 192
# registers' worth and spilling from 256.
PROLOGUE_LIMIT = 224
# What a loop may load element by element: clean at 60 in the library's backward passes.
_GATHERED = 60
_MAP_REGISTERS = 208  # of all that a map holds, loop after loop
_WITH_ADDRESS = 3  # registers of an element that is loaded by an address of its own, of 64 bits
# Warps that a recurrence may have, and the registers that its tiles may take of a thread's.
_WARPS = (1, 2, 4, 8, 16)
_ROW_REGISTERS = 96
_LANES = 128  # of tensor memory
_NESTED = 3  # tiles of a loop inside: what it carries, its term, and what its functions take


def shared_bytes(program: Program) -> int:
    """Bytes of tiles in flight: what a loop loads, once per pipeline stage, and operands of dots
    that stay for the whole loop."""
    stages = dict(program.launch).get("num_stages", 1)
    operands = {v.name for op in all_ops(program.body) if isinstance(op, Dot) for v in (op.a, op.b)}
    resident = sum(
        _tile_bytes(program, value)
        for op in program.body
        if not isinstance(op, For)
        for value in made_by(op)
        if value.name in operands
    )
    loops = [op for op in program.body if isinstance(op, For)]
    return resident + max((stages * _loaded_bytes(program, loop) for loop in loops), default=0)


def registers(program: Program) -> int:
    """32-bit registers a thread holds for what a loop carries and for its two-axis tiles that are
    no operands of dots straight from memory."""
    threads = threads_of(program.launch)
    most = 0
    for op in all_ops(program.body):
        if isinstance(op, For):
            carried = sum(_elements(program, c.inner) for c in op.carried)
            scores = {o.out.axes for o in op.body if isinstance(o, Dot)}
            gathered = [o.out for o in op.body if isinstance(o, Load) and o.out.axes in scores]
            scored = max((_elements(program, v) for v in _made(op.body)), default=0)
            if any(isinstance(o, For) for o in op.body):
                scored *= _NESTED
            scored *= max(
                [_products_beside(op, o) for o in op.body if isinstance(o, Dot)], default=1
            )
            held = carried + scored + sum(_elements(program, v) for v in gathered)
            most = max(most, held // threads)
    return most


def _products_beside(loop: For, dot: Dot) -> int:
    """How many products of one tile a masked dot stays in registers with: it is computed twice over
    where its operand is not finite, from what masks and from what the mask came of."""
    if not dot.masked:
        return 1
    return max(1, sum(isinstance(o, Dot) and o.out.axes == dot.a.axes for o in loop.body))


def prologue_registers(program: Program) -> int:
    """32-bit registers a thread holds for two-axis tiles that are loaded outside the loops, and for
    those computed there that dots or stores take."""
    threads = threads_of(program.launch)
    operands = _dot_operands(program)
    if not any(isinstance(op, For) for op in program.body):
        operands |= {op.value.name for op in program.body if isinstance(op, Store)}
    held = [
        value
        for op in program.body
        if not isinstance(op, For)
        for value in made_by(op)
        if len(value.axes) > 1 and (isinstance(op, Load) or value.name in operands)
    ]
    return sum(_elements(program, value) for value in held) // threads


def fits_map(program: Program, target: AnyTarget) -> bool:
    """Whether a target takes the program of a map: what its loops load past the tensor cores, and
    what one has summed up or stands by while the next goes on, are registers too."""
    if isinstance(target, CpuTarget):
        return True
    threads = threads_of(program.launch)
    sums = [c.inner for op in program.body if isinstance(op, For) for c in op.carried]
    held = sum(_elements(program, value) for value in sums) // threads
    held += registers(program) + prologue_registers(program)
    held = max(held, across_loops(program))
    gathered = _gathered_registers(program) <= _GATHERED
    return fits(program, target) and gathered and held <= _MAP_REGISTERS


def _gathered_registers(program: Program) -> int:
    """32-bit registers a thread holds for two-axis tiles that a loop loads and no dot takes: their
    elements, and an address for each where a tile is not read along the last axis in memory, or
    along another one than most."""
    threads = threads_of(program.launch)
    factors, most = _dot_operands(program), 0
    for loop in (op for op in program.body if isinstance(op, For)):
        loads = [op for op in all_ops(loop.body) if isinstance(op, Load) and len(op.out.axes) > 1]
        loads = [op for op in loads if op.out.name not in factors]
        along = [op.index[-1][1].axes for op in loads]
        common = max(along, key=along.count, default=frozenset())
        weights = (1 if axes and axes == common else _WITH_ADDRESS for axes in along)
        held = sum(w * _elements(program, op.out) for w, op in zip(weights, loads, strict=True))
        most = max(most, held // threads)
    return most


def has_room(program: Program, target: AnyTarget) -> bool:
    """Whether a target's shared memory holds a program's tiles in flight."""
    return isinstance(target, CpuTarget) or shared_bytes(program) <= target.shared_memory_bytes


def holds(program: Program, room: int, target: AnyTarget) -> bool:
    """Whether registers and shared memory of a target hold what a recurrence carries and makes in
    a turn; ``room``: registers of a thread where factors of products take none."""
    if isinstance(target, Target) and not target.products_from_shared:
        room = _BESIDE_FACTORS if room == REGISTER_LIMIT else room
    return registers(program) <= room and has_room(program, target)


def _room_of_a_turn(program: Program, target: AnyTarget) -> int:
    """Registers for what a turn carries and makes: more where factors of products stay in shared
    memory, and nothing takes the registers instead.

    A turn that keeps a maximum, or makes its factors, holds what these are made of beside more than
    the products of scores and of what they weigh; one that gathers a number for each pair, the
    addresses; where every block is masked, the masks.
    """
    if isinstance(target, CpuTarget) or not target.products_from_shared:
        return REGISTER_LIMIT
    turns = [op.body for op in program.body if isinstance(op, For)]
    products = [[op for op in turn if isinstance(op, Dot)] for turn in turns]
    pairs = {dot.out.axes for dots in products for dot in dots}
    gathers = any(isinstance(op, Load) and op.out.axes in pairs for turn in turns for op in turn)
    unmasked = any(dots and not any(dot.masked for dot in dots) for dots in products)
    if gathers or not unmasked:
        return REGISTER_LIMIT
    raised = any(isinstance(op, Reduce) and op.op == "max" for turn in turns for op in turn)
    if raised or _makes_factors(program):
        return REGISTER_LIMIT + (_OF_FACTORS if all(len(dots) <= 2 for dots in products) else 0)
    return _OF_SUMS


def tensor_memory_columns(program: Program) -> int:
    """Columns of tensor memory (128 lanes of 32 bits) that the products of a loop take at most.

    Each has its own, a masked one two: for what it adds to, and for that where its operand is not
    finite. A factor of pairs goes there too, one at a time, in 16 bits (Triton 3.7: 592 and 672 for
    gradients of 128 keys of 128 channels by 32 and 64 queries).
    """
    loops = [op.body for op in program.body if isinstance(op, For)]
    of_loops = [[op for op in all_ops(body) if isinstance(op, Dot)] for body in loops]
    return max((_columns(program, dots) for dots in of_loops), default=0)


def _columns(program: Program, dots: list[Dot]) -> int:
    made = {dot.out.axes for dot in dots}
    sums = sum(_elements(program, dot.out) * (2 if dot.masked else 1) for dot in dots)
    pairs = [_elements(program, dot.a) // 2 for dot in dots if dot.a.axes in made]
    return (sums + max(pairs, default=0)) // _LANES


def _has_tensor_memory(program: Program, target: AnyTarget) -> bool:
    columns = None if isinstance(target, CpuTarget) else target.tensor_memory_columns
    return columns is None or tensor_memory_columns(program) <= columns


def fits(program: Program, target: AnyTarget) -> bool:
    """Whether a target takes the program without spills, as far as one can tell."""
    if isinstance(target, CpuTarget):
        return True
    held, before = registers(program), prologue_registers(program)
    beside = before - (_loaded_factors(program) if target.products_from_shared else 0)
    return (
        has_room(program, target)
        and _has_tensor_memory(program, target)
        and held <= _room_of_a_turn(program, target)
        and beside <= PROLOGUE_LIMIT
        and held + beside <= target.registers_per_thread
    )


def _loaded_factors(program: Program) -> int:
    """Those of ``prologue_registers`` that products take as they are loaded: in shared memory. None
    where some are computed, in registers beside what they are made of."""
    if _makes_factors(program):
        return 0
    threads = threads_of(program.launch)
    factors = _dot_operands(program)
    loaded = [op.out for op in program.body if isinstance(op, Load) and len(op.out.axes) > 1]
    return sum(_elements(program, value) for value in loaded if value.name in factors) // threads


def _makes_factors(program: Program) -> bool:
    """Whether products take tiles that are neither loaded nor of pairs, rows by what is walked, or
    a turn goes through such ones element by element."""
    ops = [*all_ops(program.body)]
    steps = {op.step for op in ops if isinstance(op, For)}
    walked = {tile.dim for tile in program.tiles if tile.symbol in steps}
    rows = {axis.dim for axis in program.grid if axis.tiled}
    loaded = {op.out.name for op in ops if isinstance(op, Load)}
    factors = {v for op in ops if isinstance(op, Dot) for v in (op.a, op.b)}
    made = [value for value in factors if value.name not in loaded]
    turns = [op for loop in ops if isinstance(loop, For) for op in loop.body]
    made += [o.out for o in turns if isinstance(o, Elementwise) and len(o.out.axes) > 1]
    return not all(value.axes & walked and value.axes & rows for value in made)


def row_elements(program: Program) -> int:
    """Elements that a loop over rows keeps in registers, with those that a row makes at once."""
    loops = [op for op in program.body if isinstance(op, For)]
    inside = [inner for loop in loops for inner in all_ops(loop.body)]
    read = {v.name for op in inside for v in operands(op)} - _dot_operands(program)
    kept = [v for op in program.body for v in made_by(op) if v.name in read and len(v.axes) > 1]
    carried = [c.inner for op in all_ops(program.body) if isinstance(op, For) for c in op.carried]
    made = max((_row_elements(program, op) for op in inside), default=0)
    return made + sum(_elements(program, value) for value in (*kept, *carried))


def warps_for_rows(program: Program) -> int:
    """The fewest warps that hold what a loop over rows keeps in registers, and what a row makes."""
    held = row_elements(program)
    loops = [op for op in program.body if isinstance(op, For)]
    inside = [inner for loop in loops for inner in all_ops(loop.body)]
    products = any(isinstance(op, Dot) for op in inside)
    scans = any(isinstance(op, Combine | Solve) for op in inside)
    # Of 16 warps, each has half the registers, also for what a scan or a product keeps in each.
    allowed: tuple[int, ...] = _WARPS[:-1] if scans or products else _WARPS
    if products:
        allowed = allowed[_WARPS.index(4) :]  # one scheduler each
    choices = (n for n in allowed if held <= n * THREADS_PER_WARP * _ROW_REGISTERS)
    return next(choices, allowed[-1])


def _row_elements(program: Program, op: Op) -> int:
    """Elements that an op of a row has in the making: a scan takes its operands twice over."""
    made = sum(_elements(program, value) for value in made_by(op))
    match op:
        case Solve(_, matrix):
            return 4 * _elements(program, matrix)
        case Combine():
            return 3 * made
        case _:
            return made


def _dot_operands(program: Program) -> set[str]:
    return {v.name for op in all_ops(program.body) if isinstance(op, Dot) for v in (op.a, op.b)}


def _made(body: tuple[Op, ...]) -> list[Value]:
    """Two-axis tiles that a turn computes, sums that it carries on left out."""
    sums = [op for op in body if isinstance(op, Dot) and op.acc is not None]
    carried = {op.out.name for op in sums} | {op.acc.name for op in sums if op.acc is not None}
    return [
        op.out
        for op in body
        if isinstance(op, Dot | Elementwise) and len(op.out.axes) > 1 and op.out.name not in carried
    ]


def _elements(program: Program, value: Value) -> int:
    return prod(program.tile(dim).block for dim in value.axes)


def _tile_bytes(program: Program, value: Value) -> int:
    return _elements(program, value) * value.dtype.size_bytes


def _loaded_bytes(program: Program, loop: For) -> int:
    return sum(
        _tile_bytes(program, op.out)
        for op in loop.body
        if isinstance(op, Load) and len(op.out.axes) > 1
    )


def across_loops(program: Program) -> int:
    """32-bit registers a thread holds for tiles of two axes through some loop: what it carries and
    reads, and what is made before it for ops after it. In a straight line an element is made for
    its own sake, and few are alive at once; no compiler takes an op past a loop."""
    threads = threads_of(program.launch)
    return int(_most_across(program, program.body, frozenset())) // threads


def _most_across(program: Program, body: tuple[Op, ...], after: frozenset[Value]) -> float:
    """The most elements through a loop in a line of ops, ``after`` being read after it."""
    alive, most = {*after}, 0.0
    for op in reversed(body):
        alive -= {*made_by(op)}
        if isinstance(op, For):
            every = [*all_ops(op.body)]
            made = {value for inner in every for value in made_by(inner)}
            read = {value for inner in every for value in operands(inner)} - made
            through = alive | read | {c.inner for c in op.carried}
            inside = _most_across(program, op.body, frozenset(through))
            most = max(most, inside, sum(_words(program, value) for value in through))
            alive |= read - {c.inner for c in op.carried}
        alive |= {*operands(op)}
    return most


def _words(program: Program, value: Value) -> float:
    """The registers of all threads that numbers take; masks are made where they are read."""
    if len(value.axes) < 2 or value.dtype is DType.BOOL:
        return 0.0
    return _elements(program, value) * value.dtype.size_bytes / 4
