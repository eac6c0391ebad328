"""Ranking configurations for a GPU that is not here: what a compiler reports, and a model.

The model reads the machine code of each kernel. It ranks; its times are no promise, and results say
so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...backends.triton.cross_compile import CompileWorkers
from ...ir.knob import Configuration
from ...ir.targets import parse_target
from ..bench.work import Work
from ..results.devices import modelled_device
from ..results.folders import data_folder
from ..results.result import Result
from ..results.stored import key_of, save
from .journal import open_storage
from .kernels import Space, gpu_space
from .modelled import configured, modelled
from .search import History, Search
from .trial import Outcome
from .tuned import Tuned, TuningError, installed_versions, study_name

if TYPE_CHECKING:
    from .trial import Problem


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

        def evaluate(configuration: Configuration, best_us: float | None) -> Outcome:
            bound = configured(problem, target, configuration)
            return modelled(bound, target, problem.sizes, work, workers)

        history = search.run(evaluate, trials, [space.default], on_trial)
    return _keep(problem, space, history, Result(key, {}, 0.0, study=name), finished)


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
