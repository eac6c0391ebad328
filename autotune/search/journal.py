"""Where trials are kept: a journal file that survives a kill at any moment, or a database."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...ir.errors import ArgumentError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

LOCK_WAIT_S = 60.0  # for which a statement waits for what another process holds
_ATTEMPTS, _PAUSE_S = 5, 0.5
_PSYCOPG = frozenset({"postgresql", "postgresql+psycopg", "postgresql+psycopg2"})
_TABLES = int.from_bytes(b"mixc", "big")  # of the advisory lock under which tables are made


def open_storage(place: str | Path) -> BaseStorage:
    """The storage behind a database URL or the path of a journal file, made if it is not there.

    Raises ArgumentError where the database does not answer, or what speaks to it is not installed.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if "://" in str(place):
        return _database(str(place))
    path = Path(place)
    lock: Any = FileLock(path)  # has what optuna asks of one, without importing optuna
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _database(url: str) -> BaseStorage:
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    scheme = url.partition("://")[0]
    engine: dict[str, Any] = {"pool_pre_ping": True}  # what a server has closed is opened again
    if scheme in _PSYCOPG and "options=" not in url:  # nobody waits without end for another's lock
        engine["connect_args"] = {"options": f"-c lock_timeout={int(1000 * LOCK_WAIT_S)}"}
    try:
        for _ in range(_ATTEMPTS):  # where two make the tables of a new database, one fails
            try:
                with _alone(url, engine):
                    return RDBStorage(url, engine_kwargs=engine)
            except (DBAPIError, StorageInternalError):
                time.sleep(_PAUSE_S)
        with _alone(url, engine):
            return RDBStorage(url, engine_kwargs=engine)
    except ImportError as error:
        more = " (pip install 'mixc[postgresql]')" if scheme.startswith("postgresql") else ""
        raise ArgumentError(f"--storage {scheme}://...: {error.name} is needed{more}") from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        why = str(getattr(cause, "orig", None) or error).strip().splitlines()[0]
        raise ArgumentError(f"--storage {scheme}://...: {why}") from error


@contextmanager
def _alone(url: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """In PostgreSQL one process at a time makes tables: there two would wait for each other."""
    from sqlalchemy import create_engine, text

    if not url.startswith("postgresql"):
        yield
        return
    engine = create_engine(url, **arguments)
    try:
        with engine.begin() as connection:
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _TABLES})
            yield
    finally:
        engine.dispose()


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
