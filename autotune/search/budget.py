"""A time that the library's tuning may take, shared by what more trials of a spec may gain.

Trials that know nothing of each other set n-th records with chance 1/n, so n of them set
H(n) = 1 + 1/2 + ... + 1/n, and what a spec has gained in n trials grows by H(n + k) / H(n) - 1 of
itself in k more. What few trials say of one spec is mixed with what the others gained: where the
first trials found nothing, the next may.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from .fleet import Queue, Round, Task

if TYPE_CHECKING:
    from optuna.trial import Trial as OpenTrial

FIRST = 5  # trials of a round: the default and what a search starts with
_UNKNOWN_S = 1.0  # a round costs something, before one has been timed
_UNKNOWN_GAIN = math.log(1.1)  # what a first round gains, as if one had been seen to


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a spec: trials so far, ln(default / best), seconds that a round takes."""

    trials: int = 0
    gain: float = 0.0
    round_s: float = 0.0


def expected_gain(standing: Standing, others: float, more: int) -> float:
    """What ``more`` trials are expected to add to ln(default / best).

    ``others``: the mean gain of the specs that are known, at their first round.
    """
    if standing.trials == 0:
        return others
    weight = FIRST / (FIRST + standing.trials)
    gain = (1 - weight) * standing.gain + weight * others
    return gain * (_records(standing.trials + more) / _records(standing.trials) - 1)


def _records(trials: int) -> float:
    return math.fsum(1 / n for n in range(1, trials + 1))


class Budget:
    """Gives the round with the most expected gain a second, until the time is up."""

    def __init__(
        self, seconds: float, tasks: Sequence[Task], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``tasks``: every spec with the most trials that it may have."""
        self._tasks, self._clock = tasks, clock
        self._end = clock() + seconds

    def take(self, queue: Queue) -> tuple[OpenTrial, Task] | None:
        """The next round, of those that nobody else has; None where none fits into the time."""
        while (chosen := self._best(list(queue.rounds()))) is not None:
            queue.offer([chosen])
            taken = queue.take()
            if taken is not None:
                return taken
        return None

    def _best(self, rounds: Sequence[Round]) -> Task | None:
        left_s = self._end - self._clock()
        open_elsewhere = {_spec(r.task) for r in rounds if r.state != "done"}
        standings = known(r for r in rounds if r.state == "done")
        usual_s = fmean(s.round_s for s in standings.values()) if standings else _UNKNOWN_S
        others = fmean([_UNKNOWN_GAIN, *map(_first_gain, standings.values())])
        chosen, most = None, -1.0
        for task in self._tasks:
            standing = standings.get(_spec(task), Standing())
            more = min(FIRST, task.trials - standing.trials)
            cost_s = standing.round_s or usual_s
            if more <= 0 or _spec(task) in open_elsewhere or cost_s > left_s:
                continue
            rate = expected_gain(standing, others, more) / cost_s
            if rate > most:
                chosen, most = replace(task, trials=standing.trials + more), rate
        return chosen


def known(rounds: Iterable[Round]) -> Mapping[tuple[str, str], Standing]:
    """What finished rounds say of each spec at its precision."""
    found: dict[tuple[str, str], Standing] = {}
    for made in sorted(rounds, key=lambda r: r.task.trials):
        result = made.result
        if result is None:
            continue
        default_us = result.default_time_us or result.time_us
        gain = max(0.0, math.log(default_us / result.time_us))
        found[_spec(made.task)] = Standing(made.task.trials, gain, made.seconds)
    return found


def _first_gain(standing: Standing) -> float:
    """The part of a gain that the first round is expected to have had."""
    return standing.gain * _records(FIRST) / _records(max(standing.trials, FIRST))


def _spec(task: Task) -> tuple[str, str]:
    return task.spec, task.dtype
