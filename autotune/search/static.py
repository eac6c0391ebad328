"""Ranking configurations for a GPU that is not here: what a compiler reports, and a model.

The model reads the machine code of each kernel. It ranks; its times are no promise, and results say
so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from ...backends.triton.cross_compile import CompileWorkers
from ...backends.triton.emit import emit_module
from ...backends.triton.signatures import kernel_signatures
from ...compiler.pipeline import lower
from ...compiler.schedules.configurations import bind_configuration
from ...ir.knob import Configuration
from ...ir.plan import Plan
from ...ir.targets import Target, parse_target
from ..bench.work import Work
from ..checking.shapes import feature_sizes
from ..gpu_model.expectation import expectations
from ..results.devices import modelled_device
from ..results.folders import data_folder
from ..results.stored import Result, key_of, save
from .journal import open_storage
from .kernels import Space, gpu_space
from .order import Key
from .order import key as place_of
from .search import History, Search
from .trial import Outcome
from .tune import Tuned, TuningError, installed_versions, study_name

if TYPE_CHECKING:
    from .trial import Problem

_MOST_DRAWN = 64


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
        plan = lower(
            problem.mixer, feature_sizes(problem.mixer, problem.sizes), problem.dtype, target=target
        )

        def evaluate(configuration: Configuration, best_us: float | None) -> Outcome:
            bound = bind_configuration(plan, configuration)
            return _modelled(bound, target, problem.sizes, work, workers)

        history = search.run(evaluate, trials, [space.default], on_trial)
    return _keep(problem, space, history, Result(key, {}, 0.0, study=name), finished)


def modelled_best(
    problem: Problem, space: Space, target: Target, count: int = 8, limit_s: float = 30.0
) -> list[Configuration]:
    """The best by the model of what was drawn within a time, fastest first: nothing runs.

    A search may well start there.
    """
    plan = lower(
        problem.mixer, feature_sizes(problem.mixer, problem.sizes), problem.dtype, target=target
    )
    random, end = Random(0), time.monotonic() + limit_s
    times: dict[Key, tuple[float, Configuration]] = {}
    with CompileWorkers() as workers:
        for configuration in filter(None, (space.draw(random) for _ in range(_MOST_DRAWN))):
            if place_of(configuration) not in times:
                bound = bind_configuration(plan, configuration)
                outcome = _modelled(bound, target, problem.sizes, None, workers)
                time_us = math.inf if outcome.time_us is None else outcome.time_us
                times[place_of(configuration)] = (time_us, configuration)
            if time.monotonic() > end:
                break
    ranked = sorted(times.values(), key=lambda entry: entry[0])
    return [configuration for time_us, configuration in ranked[:count] if time_us < math.inf]


def _modelled(
    plan: Plan,
    target: Target,
    sizes: Mapping[str, int],
    work: Work | None,
    workers: CompileWorkers,
) -> Outcome:
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
    return Outcome("ok", "", sum(one.time_us for one in expected))


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
