"""How long a call takes: medians of batches, with warm code and cold data."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Call = Callable[[], object]

_BATCH_US = 20_000.0  # a batch is long beside what the clock resolves
_BUDGET_US = 500_000.0  # and all batches of a call take about this
_FEWEST, _MOST = 6, 25  # six of six turns won are luck once in 64 times
# More than the caches that a core does not share (CPU), or than the L2 (GPU).
_TOUCHED_BYTES = {"cpu": 16 << 20, "cuda": 128 << 20}


@dataclass(frozen=True, slots=True)
class Timing:
    """The median time of a call, and the quartiles, between which half of all times lie."""

    time_us: float
    quartiles_us: tuple[float, float]

    @property
    def spread_us(self) -> float:
        """The distance between the quartiles."""
        return self.quartiles_us[1] - self.quartiles_us[0]


class Clock:
    """Times calls on one device."""

    def __init__(self, device: str) -> None:
        """Take memory to sweep the caches with."""
        self.device = device
        self._scratch = torch.zeros(_TOUCHED_BYTES[device], dtype=torch.uint8, device=device)

    def once(self, call: Call, calls: int = 1) -> float:
        """Microseconds per call of one batch, after the caches were swept."""
        self._scratch.add_(1)
        if self.device == "cuda":
            return self._once_on_gpu(call, calls)
        start = time.perf_counter_ns()
        for _ in range(calls):
            call()
        return (time.perf_counter_ns() - start) / 1000 / calls

    def _once_on_gpu(self, call: Call, calls: int) -> float:
        event: Any = torch.cuda.Event
        start, end = (event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1000 / calls

    def interleaved(
        self,
        calls: Sequence[Call],
        rounds: int | None = None,
        alternating: bool = False,
        longer: int = 1,
        few: Collection[int] = (),
    ) -> list[list[float]]:
        """Times of every call, A B C A B C ..., or A B C C B A ...; every call has run before.

        ``rounds`` are as many as fit into ``longer`` times the usual time, if not given. The calls
        at the places ``few`` take part in the first two.
        """
        first = [self.once(call) for call in calls]
        counts = [1 if t > _BATCH_US else int(_BATCH_US / max(t, 1.0)) + 1 for t in first]
        if rounds is None:
            turns = [t * n for t, n in zip(first, counts, strict=True)]
            often = [t for place, t in enumerate(turns) if place not in few] or turns
            turn_us = sum(often) / len(often)
            rounds = min(longer * _MOST, max(_FEWEST, int(longer * _BUDGET_US / turn_us)))
        times: list[list[float]] = [[] for _ in calls]
        places = list(range(len(calls)))
        for turn in range(rounds):
            for place in places:
                if turn >= 2 and place in few:
                    continue
                times[place].append(self.once(calls[place], counts[place]))
            if alternating:
                places.reverse()
        return times


def timing_of(times: Sequence[float]) -> Timing:
    """Median and spread of a list of times."""
    if len(times) < 2:
        return Timing(times[0], (times[0], times[0]))
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(middle, (low, high))


def second_call_s(call: Callable[[], Any]) -> float:
    """How long the second of two calls takes: to choose among ways, not to tell."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
