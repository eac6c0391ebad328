"""Where generated code is kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """Where emitted modules are kept: ``$MIXC_CACHE``, else the user's cache folder."""
    named = os.environ.get("MIXC_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "mixc"


def put(made: Path, path: Path) -> None:
    """Rename a finished file to its place in the cache, whatever stands there: a folder too."""
    try:
        os.replace(made, path)
    except IsADirectoryError:
        aside = tempfile.TemporaryDirectory(prefix=".replaced_", dir=path.parent)
        with aside as folder, suppress(FileNotFoundError):  # another process was faster
            os.replace(path, Path(folder) / path.name)
        os.replace(made, path)


def holds(path: Path, content: bytes) -> bool:
    """Whether a file is there and has this content."""
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def digest(path: Path) -> bytes:
    """What the checksum of a file's content is."""
    return hashlib.sha256(path.read_bytes()).digest()


def is_intact(path: Path, checksum: Path) -> bool:
    """Whether a cache entry is there and its checksum, in a file of its own, right."""
    try:
        return holds(checksum, digest(path))
    except OSError:
        return False
