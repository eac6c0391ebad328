"""Where the threads of a program wait for each other: what one has written, another reads."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.tile import BufferArgument, Load, Op, Store, all_ops


def waits_before(
    ops: tuple[Op, ...], buffers: Mapping[str, BufferArgument], again: bool
) -> frozenset[int]:
    """The ids of the ops before which all threads have to have come so far.

    Of a buffer that a program reads again, what is read after it was written waits for that, and
    what is written after it was read, so that no thread reads what comes later. ``again``: the ops
    are a loop's, and a turn waits for the one before, where both happen.
    """
    kept = {name for name, buffer in buffers.items() if buffer.kept}
    if not kept:
        return frozenset()
    read, written = _touched(ops, kept)
    both = read & written if again else set[str]()
    since_read, since_written = set(both), set(both)  # as the turn before left them
    waits = set[int]()
    for op in ops:
        reads, writes = _touched((op,), kept)
        if reads & since_written or writes & since_read:
            waits.add(id(op))
            since_read, since_written = set(), set()
        since_read |= reads
        since_written |= writes
    return frozenset(waits)


def _touched(ops: tuple[Op, ...], kept: set[str]) -> tuple[set[str], set[str]]:
    """The buffers that ops read and write, within loops too."""
    every = [*all_ops(ops)]
    read = {op.buffer for op in every if isinstance(op, Load)}
    written = {op.buffer for op in every if isinstance(op, Store)}
    return read & kept, written & kept


__all__ = ["waits_before"]
