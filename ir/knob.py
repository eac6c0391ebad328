"""Knobs: numbers that only speed depends on, declared beside the code that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .errors import ArgumentError

# A value for every knob of a space, by name.
Configuration = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Knob:
    """A number that only speed depends on; ``default`` is one of ``choices``."""

    name: str
    choices: tuple[int, ...]
    default: int
    reason: str


def fault(knobs: Iterable[Knob], configuration: Configuration) -> tuple[str, str] | None:
    """The first knob whose value is none of its choices, and what is wrong with it."""
    for knob in knobs:
        value = configuration.get(knob.name, knob.default)
        if value not in knob.choices:
            *most, last = map(str, knob.choices)
            listed = f"{', '.join(most)} or {last}" if most else last
            return knob.name, f"{knob.name}: expected {listed}, got {value}"
    return None


def check_configuration(knobs: Iterable[Knob], configuration: Configuration) -> None:
    """Refuse values that kernels are not made for: ArgumentError. Other names are others' knobs."""
    found = fault(knobs, configuration)
    if found is not None:
        raise ArgumentError(found[1])
