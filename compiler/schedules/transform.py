"""The schedule of a Fourier transform: one op, without a grid, that a device's library does."""

from __future__ import annotations

from ...ir.task import TransformTask
from ...ir.tile import BufferArgument, Program
from ..tiles.context import Context


def transform(task: TransformTask, context: Context) -> Program:
    """The program of a task: what it reads and writes, and its op."""
    names = dict.fromkeys((*task.tables, *task.writes))
    buffers = [context.buffers[name] for name in names]
    arguments = tuple(
        BufferArgument(b.name, b.dims, b.dtype, written=b.name in task.writes) for b in buffers
    )
    return Program(task.name, arguments, (), (), (task.transform,), about=task.about)


__all__ = ["transform"]
