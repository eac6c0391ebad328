"""Optuna's search over a space: each trial is kept as soon as it ends, a second run goes on."""

from __future__ import annotations

import itertools
import os
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...ir.knob import Configuration
from .kernels import Space
from .order import Key, Order, key
from .trial import OneByOne, Outcome, Trying

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as OpenTrial

# A configuration and the best time so far (None at first) --> what became of it.
Evaluate = Callable[[Configuration, float | None], Outcome]
_ATTEMPTS = 8  # suggestions that were seen already, before one is drawn from those left
_REPEATED = "tried already"
_STARTUP = 8  # random trials, before there is something to learn from


@dataclass(frozen=True, slots=True)
class Trial:
    """A finished trial."""

    number: int
    configuration: Configuration
    outcome: Outcome


@dataclass
class History:
    """All finished trials of a study, in order; ``interrupted`` by Ctrl-C.

    ``cut``: why suggestions were refused before a trial, in order.
    """

    trials: list[Trial] = field(default_factory=list)
    interrupted: bool = False
    cut: list[str] = field(default_factory=list)

    def best(self, count: int = 1) -> list[Trial]:
        """The fastest that were right, fastest first."""
        right = [t for t in self.trials if t.outcome.status == "ok"]
        return sorted(right, key=lambda t: t.outcome.time_us or 0.0)[:count]

    @property
    def best_us(self) -> float | None:
        """The time of the fastest."""
        best = self.best()
        return best[0].outcome.time_us if best else None

    def number(self, status: str) -> int:
        """How many trials ended so."""
        return sum(trial.outcome.status == status for trial in self.trials)


class Search:
    """A study of one space. Several processes may share it, through its storage."""

    def __init__(
        self,
        space: Space,
        storage: BaseStorage,
        name: str,
        seed: int | None = None,
        abandoned_s: float = 3600.0,
    ) -> None:
        """Open the study, or make it.

        A trial that another machine has left open for ``abandoned_s`` is given up.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        self._random = random.Random(seed)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP)
        self._study: Study = optuna.create_study(
            study_name=name, storage=storage, sampler=sampler, load_if_exists=True
        )
        self._give_up_abandoned(abandoned_s)

    def history(self) -> History:
        """What the study holds so far."""
        trials = self._study.get_trials(deepcopy=False)
        cut = [t.user_attrs["refusal"] for t in trials if _is_cut(t)]
        return History([_read(t) for t in trials if _counts(t)], cut=cut)

    def run(
        self,
        evaluate: Evaluate,
        trials: int,
        first: Sequence[Configuration] = (),
        on_trial: Callable[[History], None] = lambda _: None,
    ) -> History:
        """Go on until the study has ``trials`` finished trials, or nothing is left to try.

        ``first`` are tried before anything else. Ctrl-C ends the search, and what was found stays.
        """
        trying = OneByOne(lambda _, configuration, best_us: evaluate(configuration, best_us))
        return self.run_by(trying, trials, first, on_trial)

    def run_by(
        self,
        trying: Trying,
        trials: int,
        first: Sequence[Configuration] = (),
        on_trial: Callable[[History], None] = lambda _: None,
    ) -> History:
        """The same with as many trials at once as ``trying`` takes."""
        history = self.history()
        self._enqueue(first, history)
        order = Order(self.space, trials, self._random)
        opened: dict[int, OpenTrial] = {}
        try:
            while True:
                self._open(trying, opened, history, order)
                if not opened:
                    break
                number, outcome = trying.ended()
                self._tell(opened.pop(number), outcome)
                history = self.history()
                on_trial(history)
        except BaseException as end:
            self._fail(opened)
            if not isinstance(end, KeyboardInterrupt):
                raise
            history = self.history()
            history.interrupted = True
        return history

    def _open(
        self, trying: Trying, opened: dict[int, OpenTrial], history: History, order: Order
    ) -> None:
        """Begin trials, as many as are still to come and as may be open."""
        while len(opened) < trying.at_once and len(history.trials) + len(opened) < order.trials:
            trial = self._ask(history, order)
            if trial is None:
                return
            opened[trial.number] = trial
            trying.start(trial.number, trial.params, history.best_us)

    def _fail(self, opened: Mapping[int, OpenTrial]) -> None:
        from optuna.trial import TrialState

        for trial in opened.values():
            self._study.tell(trial, state=TrialState.FAIL)

    # ------------------------------------------------------------------------------ one trial

    def _tell(self, trial: OpenTrial, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        for name in ("status", "message", "time_us", "spread_us", "error", "limit", "build_s"):
            trial.set_user_attr(name, getattr(outcome, name))
        match outcome.status:
            case "ok":
                self._study.tell(trial, outcome.time_us)
            case "hopeless":
                assert outcome.time_us is not None
                trial.report(outcome.time_us, step=0)
                self._study.tell(trial, state=TrialState.PRUNED)
            case "failed":
                trial.set_constraint("is right", 1.0)
                self._study.tell(trial, state=TrialState.PRUNED)

    def _ask(self, history: History, order: Order) -> OpenTrial | None:
        """A trial with a configuration that is new and that the target takes; None: none left."""
        seen = {key(t.configuration) for t in history.trials} | self._running()
        best = [t.configuration for t in history.best(len(history.trials))]
        for attempt in itertools.count():
            if not self._waiting():
                chosen = order.planned(best, order.trials - len(history.trials), seen)
                if chosen is None and attempt >= _ATTEMPTS:
                    chosen = order.drawn(seen)
                    if chosen is None:
                        return None
                if chosen is not None:
                    self._study.enqueue_trial(chosen)
            trial = self._study.ask()
            mark_running(trial)
            for knob in self.space.knobs:
                trial.suggest_categorical(knob.name, knob.choices)
            refusal = self.space.refusal(trial.params)
            repeated = key(trial.params) in seen | self._before(trial.number)
            if refusal is None and not repeated:
                return trial
            self._refuse(trial, refusal)
            seen.add(key(trial.params))  # what another process has begun since, too
        return None

    def _refuse(self, trial: OpenTrial, refusal: str | None) -> None:
        """Let the sampler know where not to look; a repetition teaches it nothing."""
        from optuna.trial import TrialState

        trial.set_user_attr("refusal", refusal or _REPEATED)
        if refusal is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            trial.set_constraint("fits the target", 1.0)
            self._study.tell(trial, state=TrialState.PRUNED)

    # ------------------------------------------------------------------------------- resuming

    def _enqueue(self, first: Sequence[Configuration], history: History) -> None:
        known = {key(t.configuration) for t in history.trials} | self._running()
        known |= {key(fixed) for fixed in self._waiting()}
        for configuration in first:
            if key(configuration) not in known:
                known.add(key(configuration))
                self._study.enqueue_trial(dict(configuration))

    def _waiting(self) -> list[Configuration]:
        from optuna.trial import TrialState

        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        return [trial.system_attrs.get("fixed_params", {}) for trial in waiting]

    def _running(self) -> set[Key]:
        """What other processes are trying."""
        from optuna.trial import TrialState

        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {key(trial.params) for trial in running}

    def _before(self, number: int) -> set[Key]:
        """What another process chose while this one did: of two, the earlier trial goes on."""
        trials = self._study.get_trials(deepcopy=False)
        kept = [
            t for t in trials if t.number < number and (_counts(t) or not t.state.is_finished())
        ]
        return {key(trial.params) for trial in kept}

    def _give_up_abandoned(self, abandoned_s: float) -> None:
        """Trials that a process left open which is no more will not be told any more."""
        from optuna.trial import TrialState

        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if is_abandoned(trial, abandoned_s):
                self._study.tell(trial.number, state=TrialState.FAIL)


def is_abandoned(trial: FrozenTrial, abandoned_s: float) -> bool:
    """Whether the process that a trial runs in is no more; of other machines time tells."""
    host, _, pid = str(trial.user_attrs.get("process", "")).rpartition(":")
    if host == socket.gethostname() and pid.isdigit():
        return not _is_alive(int(pid))
    started_s = trial.user_attrs.get("started_s")  # Optuna's own has no time zone
    return started_s is not None and time.time() - float(started_s) >= abandoned_s


def mark_running(trial: OpenTrial) -> None:
    """Say which process a trial runs in, and since when."""
    trial.set_user_attr("process", f"{socket.gethostname()}:{os.getpid()}")
    trial.set_user_attr("started_s", time.time())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _is_cut(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get("refusal", _REPEATED) != _REPEATED)


def _counts(trial: FrozenTrial) -> bool:
    return trial.state.is_finished() and "status" in trial.user_attrs


def _read(trial: FrozenTrial) -> Trial:
    names = ("status", "message", "time_us", "spread_us", "error", "limit", "build_s")
    told: dict[str, Any] = {name: trial.user_attrs.get(name) for name in names}
    outcome = Outcome(**told)
    return Trial(trial.number, dict(trial.params), outcome)
