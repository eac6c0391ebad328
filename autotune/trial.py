"""One trial of a configuration, in a worker process with a time limit.

A crash, a hang, a kernel that is wrong and a build that fails each come back as a failed outcome
with a message; the process that asked goes on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO, Literal, Self

from ..ir.binding import Number
from ..ir.knob import Configuration
from ..ir.mixer import Mixer

_MESSAGE_LINES = 12
_START_LIMIT_S = 120.0  # importing torch on a machine that is busy


@dataclass(frozen=True)
class Problem:
    """What is tuned: a mixer with its params set, on a device, at these sizes."""

    mixer: Mixer
    dtype: str
    device: Literal["cpu", "cuda"]
    sizes: Mapping[str, int]
    checked: Mapping[str, int]  # sizes to compare with the reference at
    params: Mapping[str, Number] = field(default_factory=dict)


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
    """What became of one configuration; ``message`` says why it failed, or was given up."""

    status: Literal["ok", "failed", "hopeless"]
    message: str = ""
    time_us: float | None = None
    spread_us: float = 0.0
    error: float | None = None
    limit: float | None = None
    build_s: float | None = None


class TrialWorker:
    """A process that runs jobs one by one; a new one takes the place of one that died.

    Use as a context manager. The process starts, and imports torch, at once.
    """

    def __init__(self, time_limit_s: float = 60.0) -> None:
        """``time_limit_s`` is for one job."""
        self.time_limit_s = time_limit_s
        self._worker: _Process | None = _Process()

    def __enter__(self) -> Self:
        """Give the worker itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def close(self) -> None:
        """End the process, and whatever it started."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def run(self, job: Job) -> list[Outcome]:
        """An outcome per configuration; what ends the process fails them all."""
        if self._worker is None:
            self._worker = _Process()
        try:
            return self._worker.run(job, self.time_limit_s)
        except _WorkerDied as death:
            self.close()
            return [Outcome("failed", str(death)) for _ in job.configurations]
        except BaseException:  # Ctrl-C: the answer to this job must not meet the next one
            self.close()
            raise


class _WorkerDied(Exception):
    """The process is no more, or had to be stopped; the text says why."""


class _Process:
    def __init__(self) -> None:
        ours, theirs = Pipe()
        self.connection: Connection[Job, list[Outcome] | str] = ours
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        self.ready = False
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.worker", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # so that compilers end with it, and Ctrl-C is ours
        )
        theirs.close()

    def run(self, job: Job, limit_s: float) -> list[Outcome]:
        if not self.ready:
            self._receive(_START_LIMIT_S)
            self.ready = True
        try:
            self.connection.send(job)
        except OSError as error:
            raise _WorkerDied(self._cause_of_death()) from error
        answer = self._receive(limit_s)
        assert isinstance(answer, list)
        return answer

    def _receive(self, limit_s: float) -> list[Outcome] | str:
        deadline = time.monotonic() + limit_s
        # Short waits, so that Ctrl-C is seen at once on every platform.
        while not self.connection.poll(min(0.5, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                raise _WorkerDied(f"stopped: it ran past its limit of {limit_s:g} s")
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise _WorkerDied(self._cause_of_death()) from error

    def _cause_of_death(self) -> str:
        code = self.process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.log.seek(0)
        printed = self.log.read().decode(errors="replace").splitlines()
        told = [line for line in printed if line.strip()][-_MESSAGE_LINES:]
        return "\n".join([f"the process crashed: {cause}", *told])

    def end(self) -> None:
        """Kill the process and whatever it started; nothing is lost with it."""
        self.connection.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()
