"""Sizes that this machine has no room for are refused before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..ir.errors import ArgumentError
from ..ir.mixer import Mixer

if TYPE_CHECKING:
    from ..autotune.checking.footprint import Footprint
    from ..autotune.checking.sampling import VerificationCase

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def refuse_what_is_too_large(
    mixer: Mixer, trials: Sequence[VerificationCase], sizes: Mapping[str, int]
) -> None:
    """Raise where the sizes that somebody asked for need more memory than there is.

    ``sizes`` are the caller's: ArgumentError names those, SpecError the line of ``check:``. Of the
    other trials, one that finds no room is a case that was stopped.
    """
    from ..autotune.checking.footprint import footprint
    from ..autotune.checking.memory import free_memory_bytes

    free = free_memory_bytes()
    for trial in (trial for trial in trials if trial.name == "check"):
        needed = footprint(mixer, trial.sizes)
        if free is None or needed.total_bytes <= free:
            continue
        found = _found(needed, free)
        if not sizes:
            raise _at_check(mixer, found)
        asked = " ".join(f"{dim}={size}" for dim, size in sizes.items())
        raise ArgumentError(f"{mixer.name} at {asked}: {found}: ask for smaller sizes by --size")


def _found(needed: Footprint, free: int) -> str:
    axes = ", ".join(needed.largest)
    return (
        f"to check needs {in_bytes(needed.total_bytes)} of memory, and {in_bytes(free)} are free; "
        f"the largest value, [{axes}], takes {in_bytes(needed.largest_bytes)}"
    )


def _at_check(mixer: Mixer, found: str) -> Exception:
    from ..compiler.language.text.source import Source

    if not mixer.text:
        return ArgumentError(f"{mixer.name}: `check`: {found}: choose smaller sizes")
    source = Source(mixer.path or "<text>", mixer.text)
    return source.error(mixer.check_span, f"`check`: {found}", do="choose smaller sizes")


def in_bytes(count: int) -> str:
    """``1536`` --> ``1.5 kB``."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


__all__ = ["in_bytes", "refuse_what_is_too_large"]
