"""Large weights of a loop over rows: read again for each row, not held in registers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from ...ir.targets import threads_of
from ...ir.tile import Cast, Dot, For, Load, Op, Program, all_ops, operands

# Registers of a thread that tiles from before the loop may take all through it.
_HELD = 80


def reread_weights(program: Program) -> Program:
    """``w = load; for t: use w`` --> ``for t: w = load; use w``, where the registers don't suffice.

    The memory near the processor holds what a row has read for the next one. Tiles with two axes
    that nothing but the loop reads are moved, with their casts; the others stay, and so do operands
    of dots, which are in shared memory.
    """
    loops = [op for op in program.body if isinstance(op, For)]
    if len(loops) != 1:
        return program
    (loop,) = loops
    moved = _moved(program, loop)
    threads = threads_of(program.launch)
    loaded = [op.out for op in moved.values() if isinstance(op, Load)]
    blocks = [prod(program.tile(axis).block for axis in value.axes) for value in loaded]
    if sum(blocks) <= _HELD * threads:
        return program
    again = replace(loop, body=_with_reads(loop.body, moved))
    rest = (again if op is loop else op for op in program.body if op not in moved.values())
    return replace(program, body=tuple(rest))


def _moved(program: Program, loop: For) -> Mapping[str, Op]:
    """Loads and their casts that the loop alone reads, by the names of what they make."""
    found: dict[str, Op] = {}
    outside = [op for op in program.body if op is not loop]
    kept = {carried.initial.name for carried in loop.carried}
    kept |= {v.name for op in all_ops(loop.body) if isinstance(op, Dot) for v in (op.a, op.b)}
    for op in reversed(outside):
        if not isinstance(op, Load | Cast) or len(op.out.axes) < 2 or op.out.name in kept:
            continue
        readers = [other for other in outside if op.out in operands(other)]
        if all(reader in found.values() for reader in readers):
            found[op.out.name] = op
    loads = {name for name, op in found.items() if isinstance(op, Load)}
    return {
        name: op
        for name, op in found.items()
        if isinstance(op, Load) or (isinstance(op, Cast) and op.x.name in loads)
    }


def _with_reads(body: tuple[Op, ...], moved: Mapping[str, Op]) -> tuple[Op, ...]:
    """The loop's body with each moved op before what first reads it."""
    made: list[Op] = []
    done: set[str] = set()

    def need(op: Op) -> None:
        inner = all_ops(op.body) if isinstance(op, For) else ()
        for value in [v for each in (op, *inner) for v in operands(each)]:
            if value.name in moved and value.name not in done:
                done.add(value.name)
                need(moved[value.name])
                made.append(moved[value.name])

    for op in body:
        need(op)
        made.append(op)
    return tuple(made)
