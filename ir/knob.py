"""Knobs: numbers that only speed depends on, declared beside the code that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# A value for every knob of a space, by name.
Configuration = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Knob:
    """A number that only speed depends on; ``default`` is one of ``choices``."""

    name: str
    choices: tuple[int, ...]
    default: int
    reason: str
