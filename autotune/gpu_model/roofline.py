"""What a kernel takes at most and at least by its report alone, where no machine code can be read.

It knows matrix throughput, traffic from L2 and memory, how many programs fit on a multiprocessor
and what spills cost. A recurrence counts as its bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from ...ir.plan import Kernel
from ...ir.tile import Dot, all_ops
from .grid import moved_bytes, programs_of
from .machines import MACHINES, Machine

if TYPE_CHECKING:
    from ...backends.triton.binary_report import KernelReport
    from ..bench.work import Work

# Warps that a multiprocessor needs in flight to keep its tensor cores busy, and what is lost
# where dots run without them or loads are waited for.
_BUSY_WARPS = 12
_NO_TENSOR_CORES, _NO_ASYNC_COPIES = 8.0, 1.4
_FLOPS_PER_WEIGHT = 12.0  # scale, maximum, difference, exponential, sum, cast
_BYTES_PER_SPILL = 64.0  # spilled bytes per thread that double the time
_START_US = 3.0


def roofline_us(
    kernel: Kernel, report: KernelReport, sizes: Mapping[str, int], work: Work | None
) -> float:
    """The time of a kernel on the target of its report."""
    machine = MACHINES[report.target]
    resident = resident_programs(kernel, report, machine)
    programs = programs_of(kernel, sizes)
    slots = resident * machine.multiprocessors
    last_wave = math.ceil(programs / slots) * slots / programs
    visited = _visited_pairs(kernel, sizes, work) if kernel.schedule == "flash" else 0.0
    width = sum(t.size or t.block for t in kernel.program.tiles if t.whole)
    warps = resident * dict(kernel.program.launch).get("num_warps", 4)
    busy = min(1.0, warps / _BUSY_WARPS)
    compute_us = 2.0 * visited * width / (machine.tensor_tflops * 1e6 * busy)
    if _wants_tensor_cores(kernel) and not report.tensor_core_instructions:
        compute_us *= _NO_TENSOR_CORES
    compute_us += _elementwise_flops(kernel, visited, width) / (machine.vector_tflops * 1e6 * busy)
    rows = prod(_row_blocks(kernel)) or 1
    loaded = visited / rows * width * 2.0
    cache_us = loaded / (machine.cache_gb_s * 1e3)
    memory_us = moved_bytes(kernel, sizes) / (machine.memory_gb_s * 1e3)
    slowest = max(compute_us, cache_us, memory_us)
    if dict(kernel.program.launch).get("num_stages", 1) < 2 or not report.async_copies:
        slowest *= _NO_ASYNC_COPIES if visited else 1.0
    spilled = 1.0 + (report.spilled_bytes or 0) / _BYTES_PER_SPILL
    return _START_US + slowest * last_wave * spilled


def _elementwise_flops(kernel: Kernel, visited: float, width: int) -> float:
    """A softmax's work per pair, and the accumulator's rescaling once per block of keys."""
    tiled = {axis.dim for axis in kernel.program.grid}
    keys = prod(t.block for t in kernel.program.tiles if not t.whole and t.dim not in tiled)
    return visited * (_FLOPS_PER_WEIGHT + width / keys)


def resident_programs(kernel: Kernel, report: KernelReport, machine: Machine) -> int:
    """How many programs of a kernel a multiprocessor holds at once, at least one."""
    warps = dict(kernel.program.launch).get("num_warps", 4)
    by_warps = machine.warps // warps
    by_registers = machine.registers // (max(report.registers or 0, 16) * 32 * warps)
    by_shared = machine.shared_bytes // max(report.shared_bytes or 0, 1024)
    return max(1, min(by_warps, by_registers, by_shared))


def _row_blocks(kernel: Kernel) -> list[int]:
    rows = {axis.dim for axis in kernel.program.grid if axis.tiled}
    return [t.block for t in kernel.program.tiles if t.dim in rows]


def _visited_pairs(kernel: Kernel, sizes: Mapping[str, int], work: Work | None) -> float:
    """Visible pairs, and the masked ones of partial blocks: about half a block per edge."""
    rows = prod(sizes.get(axis.dim, 1) for axis in kernel.program.grid)
    tiled = {axis.dim for axis in kernel.program.grid}
    walked = [t for t in kernel.program.tiles if not t.whole and t.dim not in tiled]
    keys = prod(sizes.get(t.dim, 1) for t in walked)
    every = float(rows * keys)
    if work is None or work.pairs >= every:
        return every
    edge = (sum(_row_blocks(kernel)) + sum(t.block for t in walked)) / 2
    return min(every, work.pairs + rows * edge)


def _wants_tensor_cores(kernel: Kernel) -> bool:
    return any(isinstance(op, Dot) for op in all_ops(kernel.program.body))
