"""The devices that mixc compiles for, as data: what a kernel may use of each.

Sizes are those of the vendors' architecture manuals: shared memory is the most that one block may
ask for (CUDA C++ Programming Guide, technical specifications per compute capability; AMD CDNA 3
ISA guide, LDS per workgroup), registers are 32 bits wide.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .errors import ArgumentError

# Of an NVIDIA GPU; estimates of registers are made for these.
THREADS_PER_WARP = 32


def threads_of(launch: Iterable[tuple[str, int]]) -> int:
    """The threads of a program by its launch knobs: 4 warps where they name none."""
    return dict(launch).get("num_warps", 4) * THREADS_PER_WARP


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of device; ``str(target)`` is the name that ``parse_target`` reads."""

    name: str  # "cuda:90", "hip:gfx942"
    backend: str  # "cuda" or "hip"
    arch: str  # "90", "gfx942"
    warp_size: int
    shared_memory_bytes: int  # the most that one block (workgroup) can use
    registers_per_thread: int
    # Of the weights of a recurrent cell, what a program may keep from row to row.
    weight_bytes: int = 80 * 1024
    # Whether tensor cores read both factors of a product from shared memory, not from registers.
    products_from_shared: bool = False
    # Columns of 128 lanes of 32 bits in the memory where tensor cores keep what they sum up; None:
    # it is in registers.
    tensor_memory_columns: int | None = None

    def __str__(self) -> str:
        """Give the text form, ``cuda:90``."""
        return self.name


def _cuda(
    arch: str, shared_kib: int, products_from_shared: bool = False, columns: int | None = None
) -> Target:
    return Target(
        f"cuda:{arch}",
        "cuda",
        arch,
        32,
        shared_kib * 1024,
        255,
        products_from_shared=products_from_shared,
        tensor_memory_columns=columns,
    )


# Vector and accumulation registers of CDNA 3 are one file of 512 per lane.
TARGETS: tuple[Target, ...] = (
    _cuda("80", 163),
    _cuda("90", 227, products_from_shared=True),
    _cuda("100", 227, products_from_shared=True, columns=512),
    _cuda("120", 99),
    Target("hip:gfx942", "hip", "gfx942", 64, 64 * 1024, 512),
)


@dataclass(frozen=True, slots=True)
class CpuTarget:
    """Vector lanes (of 32 bits), vector registers, and whether there are bfloat16 dots of pairs, or
    of tiles of registers (AMX).

    Tiles are arrays in memory, which caches hold as far as they reach: nothing is too large.
    ``macros`` are the names that the C++ compiler and its headers have defined; ``l1_bytes`` is
    what a core's first cache of data holds.
    """

    name: str
    lanes: int
    registers: int
    paired_dot: bool = False
    tile_dot: bool = False
    macros: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    weight_bytes: int = 1 << 30
    l1_bytes: int = field(default=32 << 10, compare=False)

    @property
    def has_wide_multipliers(self) -> bool:
        """Whether 16 lanes are multiplied at once, twice a cycle, and not in two halves (Zen 4).

        No CPU says so; those that do it have had an L1 over 32 KiB since Ice Lake and Zen 5.
        """
        return self.lanes >= 16 and self.l1_bytes > 32 << 10


PORTABLE = CpuTarget("portable", 4, 16)
AVX2 = CpuTarget("avx2", 8, 16)
AVX512 = CpuTarget("avx512", 16, 32)
AVX512_BF16 = CpuTarget("avx512_bf16", 16, 32, paired_dot=True)
AVX512_AMX = CpuTarget("avx512_amx", 16, 32, paired_dot=True, tile_dot=True)
NEON = CpuTarget("neon", 4, 32)

AnyTarget = Target | CpuTarget


def common_target(targets: Sequence[Target]) -> Target:
    """What all of ``targets`` have room for, under their names together."""
    first = targets[0]
    if len(targets) == 1:
        return first
    columns = [t.tensor_memory_columns for t in targets if t.tensor_memory_columns is not None]
    return Target(
        " ".join(target.name for target in targets),
        first.backend,
        first.arch,
        first.warp_size,
        min(target.shared_memory_bytes for target in targets),
        min(target.registers_per_thread for target in targets),
        min(target.weight_bytes for target in targets),
        all(target.products_from_shared for target in targets),
        min(columns, default=None),
    )


# What kernels are made for where no device is named: they run on each that is sold.
EVERY_GPU = common_target([target for target in TARGETS if target.backend == "cuda"])


def target_of(architecture: str) -> Target:
    """What is known of a device's architecture; of one that is not listed, what all have."""
    return next((target for target in TARGETS if target.name == architecture), EVERY_GPU)


def parse_target(text: str, others: Sequence[str] = ()) -> Target:
    """Read a target's name, such as ``cuda:90``.

    Raises ArgumentError that lists the names where ``text`` is none of them, after ``others`` that
    the caller takes.
    """
    for target in TARGETS:
        if target.name == text.strip().lower():
            return target
    names = [*others, *(target.name for target in TARGETS)]
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
