"""What the C++ compiler on this machine, told to use all of its CPU, has to offer."""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ...ir.targets import AVX2, AVX512, AVX512_AMX, AVX512_BF16, NEON, PORTABLE, CpuTarget

_ARCH_PRCTL = 158  # the number of the system call on x86-64
_REQUEST_STATE, _TILE_DATA = 0x1023, 18  # ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA


def target_of_macros(macros: str) -> CpuTarget:
    """The target behind what a compiler has defined (``-march=native -dM -E``)."""
    lines = [line.split()[1] for line in macros.splitlines() if line.startswith("#define ")]
    defined = frozenset(word.partition("(")[0] for word in lines)
    return replace(_target(defined), macros=defined)


def first_cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int | None:
    """The size of the first cache of data, where the system tells it."""
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size = ((index / n).read_text().strip() for n in ("level", "type", "size"))
        except OSError:
            continue
        if level == "1" and kind == "Data" and size[:-1].isdigit() and size.endswith("K"):
            return int(size[:-1]) << 10
    return None


def has_tiles(defined: frozenset[str]) -> bool:
    """Whether macros of a compiler say that the CPU has tiles of registers."""
    return defined >= {"__AMX_TILE__", "__AMX_BF16__"}


def permitted(target: CpuTarget) -> CpuTarget:
    """The target, or what is left of it where this process may not use tiles of registers."""
    if not target.tile_dot or may_use_tiles():
        return target
    return replace(AVX512_BF16, macros=target.macros)


@lru_cache(maxsize=1)
def may_use_tiles() -> bool:
    """Whether the kernel saves tiles for this process; it is asked to, once.

    Threads and forked processes have the permission too. It is refused by kernels before Linux
    5.16, by some sandboxes, and where a thread has too small a stack for signals.
    """
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    system = ctypes.CDLL(None, use_errno=True).syscall
    system.restype = ctypes.c_long
    return int(system(*map(ctypes.c_long, (_ARCH_PRCTL, _REQUEST_STATE, _TILE_DATA)))) == 0


def _target(defined: frozenset[str]) -> CpuTarget:
    if {"__AVX512F__", "__AVX512BW__", "__AVX512DQ__", "__AVX512VL__"} <= defined:
        if "__AVX512BF16__" not in defined:
            return AVX512
        return AVX512_AMX if has_tiles(defined) else AVX512_BF16
    if "__AVX2__" in defined and "__FMA__" in defined:
        return AVX2
    return NEON if "__ARM_NEON" in defined else PORTABLE
