"""The reference by a single thread: its operations are small, and others only hold them up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Operations of torch run in the calling thread alone.

    A step of a recurrence takes microseconds: three times as long where threads wait for each
    other, ten times on a machine that has other things to do.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


__all__ = ["one_thread"]
