"""What the C++ compiler on this machine, told to use all of its CPU, has to offer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class CpuTarget:
    """Vector lanes (of 32 bits), vector registers, and whether there is a bfloat16 dot of pairs.

    ``macros`` are the names that the compiler and its headers have defined.
    """

    name: str
    lanes: int
    registers: int
    paired_dot: bool = False
    macros: frozenset[str] = field(default=frozenset(), compare=False, repr=False)


PORTABLE = CpuTarget("portable", 4, 16)
AVX2 = CpuTarget("avx2", 8, 16)
AVX512 = CpuTarget("avx512", 16, 32)
AVX512_BF16 = CpuTarget("avx512_bf16", 16, 32, paired_dot=True)
NEON = CpuTarget("neon", 4, 32)


def target_of_macros(macros: str) -> CpuTarget:
    """The target behind what a compiler has defined (``-march=native -dM -E``)."""
    lines = [line.split()[1] for line in macros.splitlines() if line.startswith("#define ")]
    defined = frozenset(word.partition("(")[0] for word in lines)
    return replace(_target(defined), macros=defined)


def _target(defined: frozenset[str]) -> CpuTarget:
    if {"__AVX512F__", "__AVX512BW__", "__AVX512DQ__", "__AVX512VL__"} <= defined:
        return AVX512_BF16 if "__AVX512BF16__" in defined else AVX512
    if "__AVX2__" in defined and "__FMA__" in defined:
        return AVX2
    return NEON if "__ARM_NEON" in defined else PORTABLE
