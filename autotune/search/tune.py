"""The whole of tuning a mixer: space, search, a last race, and the result that is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...ir.knob import Configuration
from ..results.devices import Device, device_of_type
from ..results.folders import data_folder
from ..results.result import Key, Result
from ..results.stored import key_of, look_up, save, stored_results
from .journal import open_storage
from .kernels import Space, space_of
from .race import Winner, race
from .search import History, Search
from .trial import Job, Problem, TrialWorker
from .tuned import InterruptedEarly, Tuned, TuningError, installed_versions, study_name

if TYPE_CHECKING:
    from .on_ray import Cluster

# A first call that takes so much longer than the best is not worth timing further.
_HOPELESS = 2.5


def tune(
    problem: Problem,
    trials: int = 30,
    *,
    storage: str | Path | None = None,
    time_limit_s: float = 60.0,
    seed: int | None = None,
    on_trial: Callable[[History], None] = lambda _: None,
    cluster: Cluster | None = None,
) -> Tuned:
    """Search for the fastest configuration of a mixer's kernels, and keep it.

    Args:
        trials: how many the study is to have, those of earlier runs included.
        storage: a database URL, or the path of a journal file; by default a journal in the user's
            data folder.
        time_limit_s: for one trial; what takes longer has failed.
        on_trial: told of every trial that ends.
        cluster: where trials run, several at once; None: in a process of this machine.

    Raises:
        TuningError: no configuration was right.
        UnsupportedError: no compiler, or a term that no schedule computes.
    """
    device, space = _device_and_space(problem, cluster)
    key = key_of(problem.mixer, problem.sizes, problem.dtype, device)
    name = study_name(key, space, problem)
    place = data_folder() / "studies" / f"{device.slug}.journal" if storage is None else storage
    search = Search(space, open_storage(place), name, seed)
    before = search.history()
    kept = _kept(key, name)
    if kept is not None and kept[1].trials >= trials and len(before.trials) <= kept[1].trials:
        return Tuned(kept[1], kept[0], before, space.default, 0)
    first = [space.default] if before.trials else _first(problem, space, key)
    with cluster or TrialWorker(time_limit_s) as worker:

        def job(number: int, configuration: Configuration, best_us: float | None) -> Job:
            hopeless = None if best_us is None else _HOPELESS * best_us
            return Job(problem, (configuration,), number + 1, hopeless)

        trying = worker.trying(job)
        history = search.run_by(trying, trials, first, on_trial)
        if not history.best():
            early = InterruptedEarly if history.interrupted else TuningError
            raise early(_nothing_right(history))
        winner = race(worker, problem, space.default, history)
    result = _result(key, problem, winner, history, name)
    fresh = len(history.trials) - len(before.trials)
    return Tuned(result, save(result), history, space.default, fresh)


def _device_and_space(problem: Problem, cluster: Cluster | None) -> tuple[Device, Space]:
    if cluster is not None:
        return cluster.device, cluster.space(problem)
    device = device_of_type(problem.device)
    return device, space_of(problem.mixer, problem.sizes, problem.dtype, device)


def _first(problem: Problem, space: Space, key: Key) -> list[Configuration]:
    """What a new study starts with: the default, the nearest that is known, the model's best."""
    nearest = look_up(key, space.fault, for_search=True).configuration
    known: list[Configuration] = [
        space.default,
        *([{**space.default, **nearest}] if nearest else []),
    ]
    if key.device.kind == "cpu":
        return known
    from ...ir.targets import parse_target
    from .modelled import modelled_best

    return [*known, *modelled_best(problem, space, parse_target(key.device.architecture))]


def _kept(key: Key, study: str) -> tuple[Path, Result] | None:
    for path, result in stored_results(pattern=key.stem):
        if result.study == study and result.key.device == key.device:
            return path, result
    return None


def _nothing_right(history: History) -> str:
    if not history.trials:
        return "no trial has ended, so there is nothing to keep"
    first = history.trials[0].outcome
    return f"none of {len(history.trials)} configurations was right; the first: {first.message}"


def _result(
    key: Key,
    problem: Problem,
    winner: Winner,
    history: History,
    study: str,
) -> Result:
    outcome, default_us = winner.outcome, winner.default_us
    assert outcome.time_us is not None
    return Result(
        key,
        dict(winner.configuration),
        round(outcome.time_us, 1),
        round(outcome.spread_us, 1),
        None if default_us is None else round(default_us, 1),
        outcome.error,
        outcome.limit,
        False,
        len(history.trials),
        study,
        dict(problem.sizes),
        installed_versions("mixc", "torch"),
    )
