"""A process that answers questions and may die of one: crash, hang, or take all memory.

Trials of a search and cases of ``mixc verify`` run in one. The process that asks goes on.
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
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import IO, Any, Literal, Self

_MESSAGE_LINES = 12
_START_LIMIT_S = 120.0  # importing torch on a machine that is busy


class WorkerDied(Exception):
    """The process is no more, or had to be stopped; the text says why."""

    def __init__(self, fate: Literal["crashed", "stopped"], message: str) -> None:
        super().__init__(message)
        self.fate = fate


class Worker:
    """A process that runs a module's ``serve`` loop; a new one takes the place of one that died.

    Use as a context manager. The process starts, and imports what it needs, at once.
    """

    def __init__(
        self, module: str, time_limit_s: float = 60.0, environment: Mapping[str, str] = {}
    ) -> None:
        """``module`` is run as ``python -m module FD``.

        ``time_limit_s`` is for one question, ``environment`` is added to that of this process.
        """
        self.module, self.time_limit_s, self.environment = module, time_limit_s, environment
        self._process: _Process | None = _Process(module, environment)

    def __enter__(self) -> Self:
        """Give the worker itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    @property
    def pid(self) -> int | None:
        """The number of the process, where there is one."""
        return None if self._process is None else self._process.process.pid

    def close(self) -> None:
        """End the process, and whatever it started."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def ask(self, question: Any) -> Any:
        """What the process answers. Raises WorkerDied; the next question goes to a new one."""
        if self._process is None:
            self._process = _Process(self.module, self.environment)
        try:
            return self._process.ask(question, self.time_limit_s)
        except BaseException:  # Ctrl-C too: the answer to this question must not meet the next one
            self.close()
            raise


class _Process:
    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        ours, theirs = Pipe()
        self.connection: Connection[Any, Any] = ours
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        self.ready = False
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **environment},
            start_new_session=True,  # so that compilers end with it, and Ctrl-C is ours
        )
        theirs.close()

    def ask(self, question: Any, limit_s: float) -> Any:
        if not self.ready:
            self._receive(_START_LIMIT_S)
            self.ready = True
        try:
            self.connection.send(question)
        except OSError as error:
            raise WorkerDied("crashed", self._cause_of_death()) from error
        return self._receive(limit_s)

    def _receive(self, limit_s: float) -> Any:
        deadline = time.monotonic() + limit_s
        # Short waits, so that Ctrl-C is seen at once on every platform.
        while not self.connection.poll(min(0.5, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                raise WorkerDied("stopped", f"stopped: it ran past its limit of {limit_s:g} s")
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerDied("crashed", self._cause_of_death()) from error

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
