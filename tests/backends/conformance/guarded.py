"""Memory in which a backend's faults show: poisoned where unwritten, with guards around it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

GUARD = 67  # elements before and behind a tensor; odd, so that no vector ends where it does


def poison(dtype: torch.dtype) -> float | int | bool:
    """What unwritten memory holds: no number, or one that nobody computes."""
    if dtype.is_floating_point:
        return math.nan
    return True if dtype is torch.bool else torch.iinfo(dtype).max - 12345


def amid_garbage(tensor: Tensor, strided: bool) -> Tensor:
    """The tensor with garbage before and behind it; ``strided``: along each of its axes."""
    if not strided:
        room = torch.full((tensor.numel() + 2 * GUARD,), poison(tensor.dtype), dtype=tensor.dtype)
        inner = room[GUARD : GUARD + tensor.numel()].view(tensor.shape)
    else:
        shape = [size + 3 for size in tensor.shape]
        room = torch.full(shape, poison(tensor.dtype), dtype=tensor.dtype)
        inner = room[tuple(slice(1, size + 1) for size in tensor.shape)]
    inner.copy_(tensor)
    return inner


@contextmanager
def guarded_memory() -> Iterator[None]:
    """What ``torch.empty`` gives is poisoned and amid guards, which have to be whole at the end.

    Raises:
        AssertionError: something was written past either end of a tensor.
    """
    rooms: list[tuple[Tensor, int]] = []
    plain = torch.empty

    def empty(*shape: Any, **options: Any) -> Tensor:
        sizes: Sequence[int] = shape[0] if isinstance(shape[0], list | tuple) else shape
        count, dtype = math.prod(sizes), options.get("dtype") or torch.get_default_dtype()
        room = plain([count + 2 * GUARD], **options).fill_(poison(dtype))
        rooms.append((room, count))
        return room[GUARD : GUARD + count].view(*sizes) if len(sizes) else room[GUARD]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", empty)
        yield
    for room, count in rooms:
        around = torch.cat([room[:GUARD], room[GUARD + count :]])
        whole = around.isnan() if room.is_floating_point() else around == poison(room.dtype)
        assert bool(whole.all()), "a kernel wrote past an end of a tensor"
