"""Where generated code is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where emitted modules are kept: ``$MIXC_CACHE``, else the user's cache folder."""
    named = os.environ.get("MIXC_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "mixc"
