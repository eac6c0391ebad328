"""Ranking configurations for a GPU that is not here: what a compiler reports, and a roofline.

The model knows matrix throughput, traffic from L2 and memory, how many programs fit on a
multiprocessor and what spills cost. It ranks; its times are no promise, and results say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ...backends.triton.cross_compile import CompileWorkers
from ...backends.triton.emit import emit_module
from ...backends.triton.signatures import kernel_signatures
from ...compiler.pipeline import lower
from ...compiler.schedules.configurations import bind_configuration
from ...ir.knob import Configuration
from ...ir.plan import Kernel, Plan
from ...ir.targets import Target, parse_target
from ...ir.tile import Dot, all_ops
from ..bench.work import Work
from ..checking.shapes import feature_sizes
from ..results.devices import modelled_device
from ..results.folders import data_folder
from ..results.stored import Result, key_of, save
from .journal import open_storage
from .kernels import Space, gpu_space
from .search import History, Search
from .trial import Outcome
from .tune import Tuned, TuningError, installed_versions, study_name

if TYPE_CHECKING:
    from ...backends.triton.binary_report import KernelReport
    from .trial import Problem


@dataclass(frozen=True, slots=True)
class Machine:
    """A GPU as its vendor's data sheet has it; one product stands for its architecture."""

    product: str
    multiprocessors: int
    tensor_tflops: float  # dense, 16-bit inputs, 32-bit sums
    vector_tflops: float  # 32-bit, no tensor cores
    memory_gb_s: float
    cache_gb_s: float  # from L2, as published measurements have it
    shared_bytes: int  # of a multiprocessor
    registers: int = 65536  # of a multiprocessor
    warps: int = 64  # that a multiprocessor holds


MACHINES: Mapping[str, Machine] = {
    "cuda:80": Machine("A100", 108, 312, 19.5, 2039, 4500, 164 << 10),
    "cuda:90": Machine("H100", 132, 989, 67, 3350, 5700, 228 << 10),
    "cuda:100": Machine("B200", 148, 2250, 75, 8000, 9000, 228 << 10),
    "cuda:120": Machine("RTX 5090", 170, 210, 105, 1792, 6500, 100 << 10, warps=48),
    "hip:gfx942": Machine("MI300X", 304, 1307, 163, 5300, 9500, 64 << 10, 131072, 32),
}
# Warps that a multiprocessor needs in flight to keep its tensor cores busy, and what is lost
# where dots run without them or loads are waited for.
_BUSY_WARPS = 12
_NO_TENSOR_CORES, _NO_ASYNC_COPIES = 8.0, 1.4
_FLOPS_PER_WEIGHT = 12.0  # scale, maximum, difference, exponential, sum, cast
_BYTES_PER_SPILL = 64.0  # spilled bytes per thread that double the time
_START_US = 3.0


def modelled_time_us(
    plan: Plan, reports: Sequence[KernelReport], sizes: Mapping[str, int], work: Work | None
) -> float:
    """What the model expects of a plan on the target of the reports."""
    total = 0.0
    for kernel, report in zip(plan.kernels, reports, strict=True):
        machine = MACHINES[report.target]
        total += _START_US + _kernel_us(kernel, report, machine, sizes, work)
    return total


def _kernel_us(
    kernel: Kernel,
    report: KernelReport,
    machine: Machine,
    sizes: Mapping[str, int],
    work: Work | None,
) -> float:
    resident = resident_programs(kernel, report, machine)
    programs = _programs(kernel, sizes)
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
    memory_us = _bytes(kernel, sizes) / (machine.memory_gb_s * 1e3)
    slowest = max(compute_us, cache_us, memory_us)
    if dict(kernel.program.launch).get("num_stages", 1) < 2 or not report.async_copies:
        slowest *= _NO_ASYNC_COPIES if visited else 1.0
    spilled = 1.0 + (report.spilled_bytes or 0) / _BYTES_PER_SPILL
    return slowest * last_wave * spilled


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


def _programs(kernel: Kernel, sizes: Mapping[str, int]) -> int:
    blocks = {t.dim: t.block for t in kernel.program.tiles}
    each = [
        math.ceil(sizes.get(a.dim, 1) / blocks[a.dim]) if a.tiled else sizes.get(a.dim, 1)
        for a in kernel.program.grid
    ]
    return max(1, prod(each))


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


def _bytes(kernel: Kernel, sizes: Mapping[str, int]) -> float:
    return float(
        sum(
            prod(sizes.get(d, 1) for d in b.dims) * b.dtype.size_bytes
            for b in kernel.program.buffers.values()
        )
    )


def _wants_tensor_cores(kernel: Kernel) -> bool:
    return any(isinstance(op, Dot) for op in all_ops(kernel.program.body))


def tune_static(
    problem: Problem,
    architecture: str,
    trials: int = 30,
    *,
    work: Work | None = None,
    storage: str | Path | None = None,
    seed: int | None = None,
    on_trial: Callable[[History], None] = lambda _: None,
) -> Tuned:
    """Rank configurations for a target by compile reports and the model; nothing runs.

    The result is marked as modelled. Raises TuningError where no configuration compiles, and
    ArgumentError for a target that there is not.
    """
    target = parse_target(architecture)
    device = modelled_device(target.name)
    space = gpu_space(problem.mixer, problem.sizes, problem.dtype, target.name)
    key = key_of(problem.mixer, problem.sizes, problem.dtype, device)
    name = study_name(key, space, problem)
    place = data_folder() / "studies" / f"{device.slug}.journal" if storage is None else storage
    search = Search(space, open_storage(place), name, seed)
    finished = len(search.history().trials)
    with CompileWorkers() as workers:
        plan = lower(problem.mixer, feature_sizes(problem.mixer, problem.sizes), problem.dtype)

        def evaluate(configuration: Configuration, best_us: float | None) -> Outcome:
            bound = bind_configuration(plan, configuration)
            return _modelled(bound, target, problem.sizes, work, workers)

        history = search.run(evaluate, trials, [space.default], on_trial)
    return _keep(problem, space, history, Result(key, {}, 0.0, study=name), finished)


def _modelled(
    plan: Plan,
    target: Target,
    sizes: Mapping[str, int],
    work: Work | None,
    workers: CompileWorkers,
) -> Outcome:
    reports = workers.compile(emit_module(plan), kernel_signatures(plan), [target])
    for report in reports:
        if report.error is not None:
            return Outcome("failed", f"{report.name}: {report.error}")
        if (report.shared_bytes or 0) > target.shared_memory_bytes:
            has = f"{target.shared_memory_bytes:,}"
            message = f"{report.name}: {report.shared_bytes:,} bytes of shared memory of {has}"
            return Outcome("failed", message)
    return Outcome("ok", "", modelled_time_us(plan, reports, sizes, work))


def _keep(problem: Problem, space: Space, history: History, blank: Result, finished: int) -> Tuned:
    best = history.best()
    if not best:
        first = history.trials[0].outcome.message if history.trials else "no trial has ended"
        raise TuningError(f"no configuration compiles; the first: {first}")
    own = [t for t in history.trials if t.configuration == space.default]
    default_us = own[0].outcome.time_us if own else None
    result = Result(
        blank.key,
        dict(best[0].configuration),
        round(best[0].outcome.time_us or 0.0, 1),
        default_time_us=None if default_us is None else round(default_us, 1),
        modelled=True,
        trials=len(history.trials),
        study=blank.study,
        sizes=dict(problem.sizes),
        versions=installed_versions("mixc", "triton"),
    )
    fresh = len(history.trials) - finished
    return Tuned(result, save(result), history, space.default, fresh)
