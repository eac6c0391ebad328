"""mixc: a compiler for sequence mixers.

>>> import mixc
>>> attend = mixc.load("causal")
>>> attend
causal(q, k, v) -> o

The names below are imported when they are first used: the command line pays for what it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import nn
    from .api import LoadedMixer, compile_source, export_source, load
    from .ir.errors import MixcError, MixcWarning
    from .stepping.state import SequenceState

    __version__: str

__all__ = [
    "LoadedMixer",
    "MixcError",
    "MixcWarning",
    "SequenceState",
    "__version__",
    "compile_source",
    "export_source",
    "load",
    "nn",
]


def __getattr__(name: str) -> Any:
    if name in ("load", "compile_source", "export_source", "LoadedMixer"):
        from . import api

        return getattr(api, name)
    if name in ("MixcError", "MixcWarning"):
        from .ir import errors

        return getattr(errors, name)
    if name == "nn":
        from importlib import import_module

        return import_module(".nn", __name__)
    if name == "SequenceState":
        from .stepping.state import SequenceState

        return SequenceState
    if name == "__version__":
        from importlib.metadata import version

        return version("mixc")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
