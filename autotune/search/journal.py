"""Where trials are kept: a journal file that survives a kill at any moment, or a database."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def open_storage(place: str | Path) -> BaseStorage:
    """The storage behind a database URL or the path of a journal file, made if it is not there."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if "://" in str(place):
        return RDBStorage(str(place))
    path = Path(place)
    lock: Any = FileLock(path)  # has what optuna asks of one, without importing optuna
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


class FileLock:
    """Lets one process at a time append to a journal; ends with the process that holds it.

    A line that a killed process left unfinished is taken off before the next is written.
    """

    def __init__(self, journal: Path) -> None:
        """The lock is a file of its own beside the journal."""
        self._journal = journal
        self._path = journal.with_name(f"{journal.name}.lock")
        self._handle: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        drop_unfinished_line(self._journal)
        return True

    def release(self) -> None:
        """Let the next one in."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def drop_unfinished_line(path: Path) -> None:
    """``{...}\\n{...`` --> ``{...}\\n``."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            start = max(0, end - 4096)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != size:
            file.truncate(end)
