"""Rows of keys that grow by a segment at a time, without a copy of those before each time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_SPARE = 64  # rows


@dataclass(eq=False)
class Room:
    """A buffer with rows to spare along ``axis``, of which ``used`` belong to some state.

    States are views of its first rows. The longest of them is continued in place; to continue an
    earlier one again, whose next row is taken, is to copy it into a room of its own.
    """

    buffer: Tensor
    axis: int
    used: int
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self, past: int, rows: int) -> bool:
        """Take the rows after ``past``, where nobody has them and there are as many."""
        with self._lock:
            if self.used != past or past + rows > self.buffer.shape[self.axis]:
                return False
            self.used = past + rows
            return True


def extended(
    past: Tensor | None, room: Room | None, rows: Tensor, axis: int
) -> tuple[Tensor, Room | None]:
    """``past`` and then ``rows``, and the room that both lie in; None where they lie in none.

    Where a gradient is wanted the result is a new tensor: writes in place would be seen by it.
    """
    import torch

    before = 0 if past is None else past.shape[axis]
    if torch.is_grad_enabled() and (
        rows.requires_grad or (past is not None and past.requires_grad)
    ):
        return (rows if past is None else torch.cat([past, rows], axis)), None
    number = rows.shape[axis]
    if room is None or not room.claim(before, number):
        room = _with_room(past, rows, axis, before + number)
    room.buffer.narrow(axis, before, number).copy_(rows.detach())
    return room.buffer.narrow(axis, 0, before + number), room


def _with_room(past: Tensor | None, rows: Tensor, axis: int, used: int) -> Room:
    """A room with ``past`` in it; the spare rows grow with what there is, so copies stay few."""
    shape = list(rows.shape)
    shape[axis] = used + max(_LEAST_SPARE, used // 2)
    buffer = rows.new_empty(shape)
    if past is not None:
        buffer.narrow(axis, 0, past.shape[axis]).copy_(past.detach())
    return Room(buffer, axis, used)


__all__ = ["Room", "extended"]
