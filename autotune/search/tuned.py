"""What tuning finds, and the name of a study that it goes on with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ...ir.errors import UnsupportedError
from ...ir.knob import Configuration
from ..results.result import Key, Result
from .kernels import Space
from .search import History
from .trial import Problem


class TuningError(UnsupportedError):
    """No configuration could be verified; the text says what became of the default."""


class InterruptedEarly(TuningError):
    """Ctrl-C came before a configuration was right: there is nothing to keep."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found: the winner, against the default, and all that was tried."""

    result: Result
    path: Path
    history: History
    default: Configuration
    fresh: int  # trials of this run; the others are from earlier ones
    fallback: str = ""


def study_name(key: Key, space: Space, problem: Problem) -> str:
    """A name that changes with all that a time depends on: kernels, knobs, sizes, compiler."""
    parts = (
        space.source,
        *(f"{knob.name}: {knob.choices}" for knob in space.knobs),
        str(sorted(problem.sizes.items())),
        str(sorted(problem.params.items())),
    )
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{key.stem}-{digest[:12]}"


def installed_versions(*packages: str) -> dict[str, str]:
    """The versions of packages that a result depends on."""
    return {package: version(package) for package in packages}
