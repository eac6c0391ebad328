"""Compile an emitted module for GPUs that need not be present, and report what it costs there.

Compiling runs in worker processes with a time limit: a pass of the Triton compiler may abort its
process or never end, and either comes back as a report with an ``error``.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Self

from ...ir.targets import Target
from .binary_report import KernelReport

_MESSAGE_LINES = 12


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a kernel, typed as Triton writes it: ``*bf16``, ``i32``, ``fp32``.

    A ``constexpr`` has a ``value``; give a stride that is always 1 so, as Triton does at run time.
    Without ``divisible_by_16`` on pointers and strides no load is vectorised or pipelined.
    """

    name: str
    type: str
    value: int | float | bool | str | None = None
    divisible_by_16: bool = False


@dataclass(frozen=True, slots=True)
class KernelSignature:
    """A ``@triton.jit`` function of the emitted module, and how to compile it."""

    name: str
    arguments: tuple[Argument, ...]
    num_warps: int = 4
    num_stages: int = 2
    # On cuda, ptxas trades a few bytes of spill for occupancy unless it is told its limit (255).
    max_registers: int | None = None


@dataclass(frozen=True, slots=True)
class CompileJob:
    """What a worker is sent: a kernel of the module at ``path``, for one target."""

    path: str
    kernel: KernelSignature
    target: Target
    time_limit_s: float


def cross_compile(
    source: str,
    kernels: Sequence[KernelSignature],
    targets: Sequence[Target],
    *,
    time_limit_s: float = 120.0,
) -> list[KernelReport]:
    """Compile every kernel of an emitted module for every target, kernels outermost.

    A compile that fails, aborts, or takes longer than ``time_limit_s`` is reported with ``error``.
    """
    with CompileWorkers(time_limit_s=time_limit_s) as workers:
        return workers.compile(source, kernels, targets)


class CompileWorkers:
    """Worker processes that compile; the first starts, and imports triton, at once.

    Use as a context manager. A worker that a job brought down is replaced before the next job.
    """

    def __init__(self, count: int | None = None, *, time_limit_s: float = 120.0) -> None:
        """Start the first of at most ``count`` workers (by default 2, or 1 on a single core)."""
        self._count = count or min(2, os.cpu_count() or 1)
        self._time_limit_s = time_limit_s
        self._folder = tempfile.TemporaryDirectory(prefix="mixc_")
        self._workers = [_start_worker()]

    def __enter__(self) -> Self:
        """Give the workers themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker processes."""
        self.close()

    def close(self) -> None:
        """End the worker processes and remove their files."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()
        self._folder.cleanup()

    def compile(
        self, source: str, kernels: Sequence[KernelSignature], targets: Sequence[Target]
    ) -> list[KernelReport]:
        """Compile every kernel of an emitted module for every target, kernels outermost."""
        path = self._write(source)
        limit_s = self._time_limit_s
        jobs = [
            CompileJob(path, kernel, target, limit_s) for kernel in kernels for target in targets
        ]
        reports: dict[int, KernelReport] = {}
        pending = deque(enumerate(jobs))
        busy: list[_Worker] = []
        while pending or busy:
            while pending and len(busy) < self._count:
                position, job = pending.popleft()
                busy.append(self._idle_worker(busy).give(position, job))
            for worker in _finished(busy):
                busy.remove(worker)
                reports[worker.position] = self._collect(worker)
        return [reports[position] for position in range(len(jobs))]

    def _write(self, source: str) -> str:
        digest = hashlib.sha256(source.encode()).hexdigest()[:16]
        path = Path(self._folder.name) / f"mixc_kernel_{digest}.py"
        path.write_text(source)
        return str(path)

    def _idle_worker(self, busy: list[_Worker]) -> _Worker:
        idle = [worker for worker in self._workers if worker not in busy]
        if not idle:
            idle = [_start_worker()]
            self._workers += idle
        return idle[0]

    def _collect(self, worker: _Worker) -> KernelReport:
        report = worker.answer()
        if report.error is not None and not worker.alive:
            self._workers.remove(worker)
            worker.end()
        return report


@dataclass(eq=False, slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection[CompileJob, KernelReport]
    log: IO[bytes]  # all that the worker and its compilers print
    job: CompileJob | None = None
    position: int = -1
    deadline: float = 0.0
    log_start: int = 0  # where the output of the job at hand begins
    alive: bool = True

    def give(self, position: int, job: CompileJob) -> Self:
        """Send a job; a worker that has died already is found out by ``answer``."""
        if self.job is not None:  # what it printed before its first job may be why it died
            self.log_start = os.fstat(self.log.fileno()).st_size
        self.position, self.job = position, job
        self.deadline = time.monotonic() + job.time_limit_s
        with suppress(OSError):
            self.connection.send(job)
        return self

    def answer(self) -> KernelReport:
        """Take the report of the job at hand, or say why there is none."""
        assert self.job is not None
        failed = KernelReport(self.job.kernel.name, self.job.target.name)
        if not self.connection.poll():
            self.alive = False
            limit = f"its limit of {self.job.time_limit_s:g} s"
            return replace(failed, error=f"the compiler was stopped: it ran past {limit}")
        try:
            report = self.connection.recv()
        except (EOFError, OSError):
            self.alive = False
            return replace(failed, error=f"the compiler aborted: {self._cause_of_death()}")
        return report if report.error is None else self._with_diagnostics(report)

    def _with_diagnostics(self, report: KernelReport) -> KernelReport:
        printed = [line for line in self._printed() if re.search(r"\berror\b", line)]
        said = report.error or ""
        new = [line for line in printed if line not in said]
        return replace(report, error="\n".join([said, *new[:_MESSAGE_LINES]]))

    def _cause_of_death(self) -> str:
        code = self.process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        printed = self._printed()
        told = [line for line in printed if re.search(r"error|assert|fatal", line, re.IGNORECASE)]
        return "\n".join([cause, *(told[:_MESSAGE_LINES] or printed[-_MESSAGE_LINES:])])

    def _printed(self) -> list[str]:
        # The worker shares our file offset: read without moving it.
        descriptor = self.log.fileno()
        length = os.fstat(descriptor).st_size - self.log_start
        text = os.pread(descriptor, length, self.log_start).decode(errors="replace")
        return [line for line in text.splitlines() if line.strip()]

    def end(self) -> None:
        """End the process and whatever it started; nothing is lost with it."""
        self.connection.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


def _start_worker() -> _Worker:
    ours, theirs = Pipe()
    log = tempfile.TemporaryFile()  # noqa: SIM115 (the worker closes it)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mixc.backends.triton.worker", str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=_environment(),
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # so that its ptxas ends with it
    )
    theirs.close()
    return _Worker(process, ours, log)


def _environment() -> dict[str, str]:
    """Give the worker our environment, but never the interpreter in place of the compiler.

    Registers and spills are in the log of ``ptxas``, which a cached kernel comes without.
    """
    ours = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return ours | {"TRITON_ALWAYS_COMPILE": "1", "TRITON_DUMP_PTXAS_LOG": "1"}


def _finished(busy: list[_Worker]) -> list[_Worker]:
    """Wait until a worker answers, dies, or is past its deadline; give those that did."""
    now = time.monotonic()
    wait(
        [worker.connection for worker in busy],
        timeout=max(0.0, min(worker.deadline for worker in busy) - now),
    )
    now = time.monotonic()
    return [worker for worker in busy if worker.connection.poll() or worker.deadline <= now]
