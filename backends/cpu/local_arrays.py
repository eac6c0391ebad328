"""Where a kernel's tiles lie: on the stack of its thread, or on the heap where that is too small.

A thread of OpenMP has 8 MiB of stack on Linux, or 2 MiB where ``ulimit -s`` says unlimited, and no
way to ask for more once a process has such threads.
"""

from __future__ import annotations

from collections.abc import Callable

STACK_BYTES = 1 << 20  # of all arrays of a kernel together: half of the smallest stack
_SIZES = {
    "float": 4,
    "int32_t": 4,
    "uint32_t": 4,
    "int64_t": 8,
    "uint16_t": 2,
    "mx::bf16": 2,
    "mx::fp16": 2,
}


class LocalArrays:
    """The arrays of one kernel. What lies on the stack never has more than ``STACK_BYTES``."""

    def __init__(self, fresh: Callable[[str], str]) -> None:
        self.bytes: dict[str, int] = {}
        self._fresh = fresh  # a name that is not taken
        self._room_bytes = STACK_BYTES

    def declare(self, kind: str, name: str, count: int) -> tuple[str, ...]:
        """The lines that declare an array.

        It takes half of the room that is left at most, so that the small ones, which come and go
        with each row, find room after large ones.
        """
        needed = self.bytes[name] = _SIZES[kind] * count
        if needed > self._room_bytes // 2:
            heap = self._fresh(f"{name}_heap")
            return f"const mx::Heap {heap}({needed});", f"{kind}* const {name} = {heap};"
        self._room_bytes -= needed
        return (f"alignas(64) {kind} {name}[{count}];",)
