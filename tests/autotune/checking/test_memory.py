"""Memory that is not there is asked for in vain, and no process ends of it."""

from __future__ import annotations

import pytest
import torch

from mixc.autotune.checking import memory

GIB = 1 << 30


def test_more_than_is_free_is_an_error_inside_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: GIB)
    with memory.within_free_memory():
        torch.empty(GIB // 2, dtype=torch.uint8)
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.empty(2 * GIB, dtype=torch.uint8)
    torch.empty(2 * GIB, dtype=torch.uint8)


def test_where_nothing_is_known_there_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: None)
    with memory.within_free_memory():
        torch.empty(2 * GIB, dtype=torch.uint8)
