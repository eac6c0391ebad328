"""The other end of ``process.Worker``: answers questions until it is hung up on."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from .memory import free_memory_bytes

_PARENT_INTERVAL_S = 1.0


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer what comes through the connection whose number is the first argument.

    Memory is limited to what is free now: asking for more is an error here, rather than the end
    of another process.
    """
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    free = free_memory_bytes()
    if free is not None:
        resource.setrlimit(
            resource.RLIMIT_DATA, (free, resource.getrlimit(resource.RLIMIT_DATA)[1])
        )
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    connection.send("ready")
    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        connection.send(answer(question))


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, though a kernel may hang."""
    while os.getppid() == parent:
        time.sleep(_PARENT_INTERVAL_S)
    os._exit(1)
