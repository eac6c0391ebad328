"""Where tuned results and studies are kept."""

from __future__ import annotations

import os
import tempfile
from importlib.resources import files
from pathlib import Path


def data_folder() -> Path:
    """What a user's own runs have found: ``$MIXC_DATA``, else the user's data folder."""
    named = os.environ.get("MIXC_DATA")
    if named:
        return Path(named)
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "mixc"


def result_folders() -> tuple[Path, ...]:
    """Folders of tuned results: the user's own, then those that come with mixc."""
    package = __name__.partition(".")[0]
    return data_folder() / "tuned", Path(str(files(f"{package}.specs"))) / "tuned"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that others see it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
