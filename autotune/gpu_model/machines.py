"""GPUs as data: what their vendors say of them, and what copies and products reach of it.

Multiprocessors, clocks, peaks of tensor cores and of the memory are those of data sheets (A100 80GB
SXM, H100 SXM, B200, RTX 5090, MI300X); one product stands for an architecture. Only the H100's
``reached_gb_s``, ``l2_bytes_per_cycle`` and ``synchronous`` are calibrated. Elsewhere copies are
taken to reach the same 0.87 of the peak, L2 to give ``cache_gb_s`` shared out, and mma.sync, where
there is nothing else, to reach 0.95 of its rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """A GPU; shared memory, registers and warps are a multiprocessor's."""

    product: str
    multiprocessors: int
    tensor_tflops: float  # dense, 16-bit inputs, 32-bit sums
    vector_tflops: float  # 32-bit, no tensor cores
    memory_gb_s: float
    cache_gb_s: float  # from L2, as published measurements have it
    shared_bytes: int
    tensor_macs: float = 512  # 16-bit products per cycle of a quarter of a multiprocessor
    clock_ghz: float = 1.755
    reached_gb_s: float = 2900.0
    l2_bytes_per_cycle: float = 28.0  # of one multiprocessor where all of them read
    synchronous: float = 0.62  # the part of its rate that mma.sync reaches; wgmma reaches all
    two_sum_pipes: bool = True  # 32-bit sums and products have two pipes
    registers: int = 65536
    warps: int = 64
    warp_size: int = 32


MACHINES: Mapping[str, Machine] = {
    "cuda:80": Machine(
        "A100", 108, 312, 19.5, 2039, 4500, 164 << 10, 256, clock_ghz=1.41, reached_gb_s=1770,
        l2_bytes_per_cycle=29.5, synchronous=0.95, two_sum_pipes=False,
    ),
    "cuda:90": Machine("H100", 132, 989, 67, 3350, 5700, 228 << 10),
    "cuda:100": Machine(
        "B200", 148, 2250, 75, 8000, 9000, 228 << 10, 1024, clock_ghz=1.85, reached_gb_s=6900,
        l2_bytes_per_cycle=32.9,
    ),
    "cuda:120": Machine(
        "RTX 5090", 170, 210, 105, 1792, 6500, 100 << 10, 64, clock_ghz=2.41, reached_gb_s=1560,
        l2_bytes_per_cycle=15.9, synchronous=0.95, warps=48,
    ),
    "hip:gfx942": Machine(
        "MI300X", 304, 1307, 163, 5300, 9500, 64 << 10, 256, clock_ghz=2.1, reached_gb_s=4300,
        registers=131072, warps=32, warp_size=64,
    ),
}  # fmt: skip
