"""What the C++ compiler on this machine, told to use all of its CPU, has to offer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...ir.targets import AVX2, AVX512, AVX512_BF16, NEON, PORTABLE, CpuTarget


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


def _target(defined: frozenset[str]) -> CpuTarget:
    if {"__AVX512F__", "__AVX512BW__", "__AVX512DQ__", "__AVX512VL__"} <= defined:
        return AVX512_BF16 if "__AVX512BF16__" in defined else AVX512
    if "__AVX2__" in defined and "__FMA__" in defined:
        return AVX2
    return NEON if "__ARM_NEON" in defined else PORTABLE
