"""One trial of a configuration, in a worker process with a time limit.

A crash, a hang, a kernel that is wrong and a build that fails each come back as a failed outcome
with a message; the process that asked goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self

from ...ir.binding import Number
from ...ir.knob import Configuration
from ...ir.mixer import Mixer
from ..checking.passes import Origin
from ..checking.process import Worker, WorkerDied


@dataclass(frozen=True)
class Problem:
    """What is tuned: a mixer with its params set, on a device, at these sizes.

    ``origin``: what it is the backward pass of; None: it is no backward pass.
    """

    mixer: Mixer
    dtype: str
    device: Literal["cpu", "cuda"]
    sizes: Mapping[str, int]
    checked: Mapping[str, int]  # sizes to compare with the reference at
    params: Mapping[str, Number] = field(default_factory=dict)
    origin: Origin | None = None


@dataclass(frozen=True)
class Job:
    """Configurations to check and time, interleaved where there are several.

    One that takes over ``hopeless_us`` in its first call is not timed further.
    """

    problem: Problem
    configurations: tuple[Configuration, ...]
    seed: int = 0
    hopeless_us: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one configuration; ``message`` says why it failed, or was given up.

    ``times_us``: one for each turn of the configurations of a job.
    """

    status: Literal["ok", "failed", "hopeless"]
    message: str = ""
    time_us: float | None = None
    spread_us: float = 0.0
    error: float | None = None
    limit: float | None = None
    build_s: float | None = None
    times_us: tuple[float, ...] = ()


# The number of a trial, its configuration and the best time so far (None at first) --> the job.
JobOf = Callable[[int, Configuration, float | None], Job]


class Trying(Protocol):
    """Carries out up to ``at_once`` trials at a time, told apart by their numbers."""

    at_once: int

    def start(self, number: int, configuration: Configuration, best_us: float | None) -> None:
        """Begin a trial; fewer than ``at_once`` are open."""

    def ended(self) -> tuple[int, Outcome]:
        """The number of an open trial that has ended, and what became of it; waits for one."""


class OneByOne:
    """Trials by a function, each as it is asked for."""

    def __init__(self, try_one: Callable[[int, Configuration, float | None], Outcome]) -> None:
        """``try_one``: a trial's number, its configuration, the best time --> its outcome."""
        self._try_one = try_one
        self._open: tuple[int, Configuration, float | None] | None = None
        self.at_once = 1

    def start(self, number: int, configuration: Configuration, best_us: float | None) -> None:
        """Keep what is to be tried."""
        self._open = number, configuration, best_us

    def ended(self) -> tuple[int, Outcome]:
        """Try it."""
        assert self._open is not None
        return self._open[0], self._try_one(*self._open)


class TrialWorker:
    """A process that runs jobs one by one; a new one takes the place of one that died.

    Use as a context manager. The process starts, and imports torch, at once.
    """

    def __init__(self, time_limit_s: float = 60.0) -> None:
        """``time_limit_s`` is for one job."""
        self.worker = Worker(f"{__package__}.worker", time_limit_s)

    def __enter__(self) -> Self:
        """Give the worker itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.worker.close()

    def trying(self, job_of: JobOf) -> OneByOne:
        """Carries out the trials of a search."""
        return OneByOne(lambda *trial: self.run(job_of(*trial))[0])

    def run(self, job: Job) -> list[Outcome]:
        """An outcome per configuration; what ends the process fails them all."""
        try:
            answer = self.worker.ask(job)
        except WorkerDied as death:
            return [Outcome("failed", str(death)) for _ in job.configurations]
        assert isinstance(answer, list)
        return answer
