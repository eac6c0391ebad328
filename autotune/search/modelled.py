"""Configurations by the model of a kernel's time: they are compiled, and nothing runs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from ...backends.triton.cross_compile import CompileWorkers
from ...backends.triton.emit import emit_module
from ...backends.triton.signatures import kernel_signatures
from ...compiler.pipeline import lower
from ...compiler.schedules.configurations import bind_configuration
from ...compiler.schedules.parts import CHUNK_KERNELS
from ...ir.knob import Configuration
from ...ir.plan import Plan
from ...ir.targets import Target
from ...ir.transform import FFT_TERMS
from ..bench.work import Work
from ..checking.shapes import feature_sizes
from ..gpu_model.expectation import expectations
from .kernels import Space
from .order import Key
from .order import key as place_of
from .trial import Outcome

if TYPE_CHECKING:
    from .trial import Problem

_MOST_DRAWN = 64


def modelled_best(
    problem: Problem, space: Space, target: Target, count: int = 8, limit_s: float = 30.0
) -> list[Configuration]:
    """The best by the model of what was drawn within a time, fastest first: nothing runs.

    A search may well start there.
    """
    random, end = Random(0), time.monotonic() + limit_s
    times: dict[Key, tuple[float, Configuration]] = {}
    with CompileWorkers() as workers:
        for configuration in filter(None, (space.draw(random) for _ in range(_MOST_DRAWN))):
            if place_of(configuration) not in times:
                bound = configured(problem, target, configuration)
                outcome = modelled(bound, target, problem.sizes, None, workers)
                time_us = math.inf if outcome.time_us is None else outcome.time_us
                times[place_of(configuration)] = (time_us, configuration)
            if time.monotonic() > end:
                break
    ranked = sorted(times.values(), key=lambda entry: entry[0])
    return [configuration for time_us, configuration in ranked[:count] if time_us < math.inf]


def configured(problem: Problem, target: Target, configuration: Configuration) -> Plan:
    """The plan that a configuration asks for, with its blocks and launches."""
    sizes = feature_sizes(problem.mixer, problem.sizes)
    plan = lower(
        problem.mixer,
        sizes,
        problem.dtype,
        target=target,
        chunk_kernels=configuration.get(CHUNK_KERNELS.name, 0),
        fft_terms=configuration.get(FFT_TERMS.name, FFT_TERMS.default),
    )
    return bind_configuration(plan, configuration)


def modelled(
    plan: Plan,
    target: Target,
    sizes: Mapping[str, int],
    work: Work | None,
    workers: CompileWorkers,
) -> Outcome:
    """A plan's time by compile reports and the model, or why a target does not take it."""
    source = emit_module(plan)
    reports = workers.compile(source, kernel_signatures(plan), [target])
    for report in reports:
        if report.error is not None:
            return Outcome("failed", f"{report.name}: {report.error}")
        if (report.shared_bytes or 0) > target.shared_memory_bytes:
            has = f"{target.shared_memory_bytes:,}"
            message = f"{report.name}: {report.shared_bytes:,} bytes of shared memory of {has}"
            return Outcome("failed", message)
    expected = expectations(plan, source, reports, sizes, work)
    return Outcome("ok", "", sum(one.all_us for one in expected))


__all__ = ["configured", "modelled", "modelled_best"]
