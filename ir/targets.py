"""The devices that mixc compiles for, as data: what a kernel may use of each.

Sizes are those of the vendors' architecture manuals: shared memory is the most that one block may
ask for (CUDA C++ Programming Guide, technical specifications per compute capability; AMD CDNA 3
ISA guide, LDS per workgroup), registers are 32 bits wide.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from .errors import ArgumentError


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of device; ``str(target)`` is the name that ``parse_target`` reads."""

    name: str  # "cuda:90", "hip:gfx942"
    backend: str  # "cuda" or "hip"
    arch: str  # "90", "gfx942"
    warp_size: int
    shared_memory_bytes: int  # the most that one block (workgroup) can use
    registers_per_thread: int

    def __str__(self) -> str:
        """Give the text form, ``cuda:90``."""
        return self.name


def _cuda(arch: str, shared_kib: int) -> Target:
    return Target(f"cuda:{arch}", "cuda", arch, 32, shared_kib * 1024, 255)


# Vector and accumulation registers of CDNA 3 are one file of 512 per lane.
TARGETS: tuple[Target, ...] = (
    _cuda("80", 163),
    _cuda("90", 227),
    _cuda("100", 227),
    _cuda("120", 99),
    Target("hip:gfx942", "hip", "gfx942", 64, 64 * 1024, 512),
)


def parse_target(text: str) -> Target:
    """Read a target's name, such as ``cuda:90``.

    Raises ArgumentError that lists the names where ``text`` is none of them.
    """
    for target in TARGETS:
        if target.name == text.strip().lower():
            return target
    names = [target.name for target in TARGETS]
    close = difflib.get_close_matches(_spelled_out(text), names, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ArgumentError(f"unknown target {text!r}: expected one of {', '.join(names)}{hint}")


def _spelled_out(text: str) -> str:
    """Turn other spellings of an architecture (``sm_90a``, ``90``, ``gfx942``) into ours."""
    name = text.strip().lower().replace(" ", "")
    for prefix in ("sm_", "sm", "compute_"):
        if name.startswith(prefix):
            name = name.removeprefix(prefix).rstrip("a")
            break
    if name.isdigit():
        return f"cuda:{name}"
    return f"hip:{name}" if name.startswith("gfx") else name
