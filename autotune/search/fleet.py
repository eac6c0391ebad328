"""A fleet: machines take specs to tune from a storage that they share, each for its own device.

A queue is an Optuna study per kind of device; a task is a trial of it, which waits, runs, and ends
with the result. So twenty machines need one database and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..results.devices import Device
from ..results.result import Result
from .search import is_abandoned, mark_running

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as OpenTrial

_PREFIX = "fleet-"
_ABANDONED_S = 6 * 3600.0  # a task of another machine that has not ended by then is given to others


@dataclass(frozen=True, slots=True)
class Task:
    """A spec of the library to tune, at a working precision, and how many trials it gets."""

    spec: str
    dtype: str
    trials: int

    @property
    def text(self) -> str:
        """What a trial is marked with."""
        return f"{self.spec} {self.dtype} {self.trials}"


def task_of(text: str) -> Task:
    """The task that has this text."""
    spec, dtype, trials = text.rsplit(" ", 2)
    return Task(spec, dtype, int(trials))


@dataclass(frozen=True, slots=True)
class Round:
    """A task that somebody has taken: done with a result, failed or still running."""

    task: Task
    state: Literal["done", "failed", "running"]
    seconds: float = 0.0
    result: Result | None = None


class Queue:
    """The tasks of one kind of device. Every method may be called by many machines at once."""

    def __init__(self, storage: BaseStorage, device: Device) -> None:
        """Open the queue, or make it."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            study_name=f"{_PREFIX}{device.slug}", storage=storage, load_if_exists=True
        )

    def offer(self, tasks: Iterable[Task]) -> None:
        """Add what is not waiting, running or done; what was given back waits once more."""
        from optuna.trial import TrialState

        for trial in self._trials(TrialState.RUNNING):
            if is_abandoned(trial, _ABANDONED_S):
                self._study.tell(trial.number, state=TrialState.FAIL)
        known = {t.user_attrs.get("task") for t in self._trials() if not _is_given_back(t)}
        for task in tasks:
            if task.text not in known:
                self._study.enqueue_trial({}, user_attrs={"task": task.text})

    def take(self) -> tuple[OpenTrial, Task] | None:
        """A task that nobody else has; None: none is left. End it with one of the next three."""
        from optuna.trial import TrialState

        while self._trials(TrialState.WAITING):
            trial = self._study.ask()
            mark_running(trial)
            text = trial.user_attrs.get("task")
            if text is not None and not self._is_taken(trial.number, text):
                return trial, task_of(text)
            # Another machine took the last that waited, or had offered the same at the same time.
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def rounds(self) -> Iterator[Round]:
        """What became of the tasks that were taken, by whichever machine."""
        from ..results.validation import checked

        for trial in self._trials():
            text, state = trial.user_attrs.get("task"), trial.state.name
            if text is None or state == "WAITING" or _is_given_back(trial):
                continue
            if "result" in trial.user_attrs:
                seconds = float(trial.user_attrs.get("seconds", 0.0))
                yield Round(task_of(text), "done", seconds, checked(trial.user_attrs["result"]))
            else:
                yield Round(task_of(text), "failed" if state == "FAIL" else "running")

    def finish(self, trial: OpenTrial, result: Result, seconds: float = 0.0) -> None:
        """A task has a result, which took so long."""
        trial.set_user_attr("seconds", seconds)
        trial.set_user_attr("result", result.as_dict())
        self._study.tell(trial, result.time_us)

    def fail(self, trial: OpenTrial, message: str) -> None:
        """A task can't be done on this kind of device."""
        from optuna.trial import TrialState

        trial.set_user_attr("message", message)
        self._study.tell(trial, state=TrialState.FAIL)

    def give_back(self, trial: OpenTrial) -> None:
        """A task was interrupted; the next that is offered the library takes it up."""
        from optuna.trial import TrialState

        self._study.tell(trial, state=TrialState.FAIL)

    def _trials(self, *states: object) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)  # type: ignore[arg-type]

    def _is_taken(self, number: int, text: str) -> bool:
        same = [t for t in self._trials() if t.user_attrs.get("task") == text]
        return any(t.number < number and not _is_given_back(t) for t in same)


def _is_given_back(trial: FrozenTrial) -> bool:
    return trial.state.name == "FAIL" and "message" not in trial.user_attrs


def fleet_results(storage: BaseStorage) -> Iterator[Result]:
    """The results of all queues of a storage, of every kind of device."""
    import optuna

    from ..results.validation import checked

    for name in optuna.get_all_study_names(storage):
        if name.startswith(_PREFIX):
            study = optuna.load_study(study_name=name, storage=storage)
            for trial in study.get_trials(deepcopy=False):
                if "result" in trial.user_attrs:
                    yield checked(trial.user_attrs["result"])
