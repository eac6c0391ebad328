"""Trials in a process of their own: a crash, a hang or a flood is a verdict, and the next runs."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

SECONDS = 120.0
BYTES = 6 << 30
_PATIENCE = 6
# What a first answer imports, 2 s of it: here once for all processes.
_NEEDED_LATER = ("sympy", "torch._dynamo", "triton.language", "triton.runtime.interpreter")


@dataclass
class Worker:
    """Asks a process; one that dies or takes too long is replaced.

    ``answer`` is a function of a module, and runs there.
    """

    answer: Callable[[Any], Any]
    seconds: float = SECONDS
    process: ForkServerProcess | None = None
    connection: Connection[Any, Any] | None = None

    def ask(self, question: object) -> tuple[str, Any]:
        """("", answer), or ("crashed" or "stopped", what is known of it)."""
        if self.process is None:
            self._start()
        assert self.connection is not None
        assert self.process is not None
        try:
            self.connection.send(question)
            if not self._answers():
                self.stop()
                return "stopped", f"no answer within {self.seconds:.0f} s"
            return "", self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join(5)
            code = self.process.exitcode
            self.stop()
            return "crashed", _ending(code)

    def _answers(self) -> bool:
        """Wait for as long as the process may compute; longer where others keep it from that."""
        assert self.connection is not None
        before = self._cpu_seconds()
        for _ in range(_PATIENCE):
            if self.connection.poll(self.seconds):
                return True
            if self._cpu_seconds() - before > self.seconds / 2:
                return False
        return False

    def _cpu_seconds(self) -> float:
        assert self.process is not None
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End the process, and begin anew at the next question."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
        if self.connection is not None:
            self.connection.close()
        self.process = self.connection = None

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([self.answer.__module__, *_NEEDED_LATER])
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, self.answer), daemon=True)
        self.process.start()
        other.close()


def _serve(connection: Connection[Any, Any], answer: Callable[[Any], Any]) -> None:
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):  # whoever asks is gone
        while True:
            connection.send(answer(connection.recv()))


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the process died of {signal.Signals(-code).name}"
    return f"the process ended with {code}"
