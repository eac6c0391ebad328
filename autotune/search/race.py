"""The last race: the fastest of a search and the default once more, in turns, compared in pairs.

The times of a search rank what is close to the best hardly better than chance: each is short, and
taken at another minute of the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Protocol

from ...ir.knob import Configuration
from .search import History
from .trial import Job, Outcome, Problem

# How many of the fastest run the last race against the default configuration.
_FINALISTS = 3
# How often a configuration no faster than the default may win against it by luck.
_BY_LUCK = 0.02


@dataclass(frozen=True, slots=True)
class Winner:
    """What a race was won with; ``default_us`` is the default's time in it, where it was right."""

    configuration: Configuration
    outcome: Outcome
    default_us: float | None


class Runs(Protocol):
    """Runs the configurations of a job in turns."""

    def run(self, job: Job) -> list[Outcome]:
        """An outcome per configuration."""


def race(worker: Runs, problem: Problem, default: Configuration, history: History) -> Winner:
    """The winner of the fastest trials and the default; of the trials where the race fails."""
    best = history.best(_FINALISTS)
    entries = [default, *(t.configuration for t in best if t.configuration != default)]
    outcomes = worker.run(Job(problem, tuple(entries), seed=len(history.trials) + 1))
    won = winner(entries, outcomes)
    if won is not None:
        return won
    own = [t.outcome.time_us for t in history.trials if t.configuration == default]
    return Winner(best[0].configuration, best[0].outcome, own[0] if own else None)


def winner(entries: Sequence[Configuration], outcomes: Sequence[Outcome]) -> Winner | None:
    """The fastest of those that were right; None: none was.

    The first entry is the default. It wins a tie: where so many turns, or more, would be won
    against it by luck too often.
    """
    right = [place for place, outcome in enumerate(outcomes) if outcome.status == "ok"]
    if not right:
        return None
    base = outcomes[right[0]]
    ratios = {place: _ratios(outcomes[place], base) for place in right}
    first = min(right, key=lambda place: median(ratios[place]))
    if right[0] == 0 and _luck(ratios[first]) > _BY_LUCK:
        first = 0
    default_us = outcomes[0].time_us if right[0] == 0 else None
    return Winner(entries[first], outcomes[first], default_us)


def _ratios(outcome: Outcome, base: Outcome) -> list[float]:
    """Of the times of the same turns: what slows all alike is in none."""
    return [own / other for own, other in zip(outcome.times_us, base.times_us, strict=True)]


def _luck(ratios: Sequence[float]) -> float:
    """The sign test: how likely so many turns or more are won where each is a toss of a coin."""
    turns, won = len(ratios), sum(ratio < 1 for ratio in ratios)
    return sum(comb(turns, wins) for wins in range(won, turns + 1)) / float(2**turns)
