"""The environment that executes TTGIR: Python 3.12 or newer with triton, numpy and ttsem."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

BUILD = Path(__file__).parents[2] / "build" / "evidence"
RELEASE = "3.7.1"
_VERSIONS = ("3.12", "3.13", "3.14")


def newer_python() -> str | None:
    """A Python that is new enough; None where this machine has none."""
    for candidate in _candidates():
        asked = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))"
        found = subprocess.run([candidate, "-c", asked], capture_output=True, check=False)
        if found.returncode == 0:
            return candidate
    return None


def _candidates() -> Iterator[str]:
    yield sys.executable
    for version in _VERSIONS:
        yield from filter(None, [shutil.which(f"python{version}")])
        root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
        yield from map(str, sorted(root.glob(f"versions/{version}*/bin/python")))


def environment(release: str = RELEASE) -> Path | None:
    """Its interpreter, made where it is not there yet; None without a newer Python.

    Raises CalledProcessError where packages can't be had.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    folder = BUILD / release
    with (BUILD / "lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".ready").exists():
            base = newer_python()
            if base is None:
                return None
            _make(base, folder, release)
    return folder / "bin" / "python"


def _make(base: str, folder: Path, release: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([base, "-m", "venv", str(folder)], check=True)
    packages = [f"triton=={release}", "numpy", "ttsem==0.1.0"]
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--no-deps", *packages]
    subprocess.run(install, check=True)
    (folder / ".ready").touch()
