"""How much memory a process may still take."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of control groups of either version: the limit, and what of their use can't be given back.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", "anon"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
        "total_rss",
    ),
)


def free_memory_bytes() -> int | None:
    """What the machine, or the container, has left; None where that can't be told."""
    available = _entry("/proc/meminfo", "MemAvailable:")
    found = [None if available is None else 1024 * available]
    for limit, statistics, entry in _GROUPS:
        most, used = _number(limit), _entry(statistics, entry)
        found.append(None if most is None or used is None else max(0, most - used))
    return min((size for size in found if size is not None), default=None)


@contextmanager
def within_free_memory() -> Iterator[None]:
    """Asking for more memory than is free is an error inside, rather than the end of a process."""
    free, used = free_memory_bytes(), _entry("/proc/self/status", "VmData:")
    if free is None or used is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = 1024 * used + free
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard < 0 else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _entry(path: str, name: str) -> int | None:
    """``name 123 kB`` --> 123."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((int(words[1]) for words in map(str.split, lines) if words[:1] == [name]), None)


__all__ = ["free_memory_bytes", "within_free_memory"]
