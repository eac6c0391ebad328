"""What instructions wait for beside their scoreboards, and what they set going."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from .instructions import Instruction
from .pipes import BARRIER_LATENCY

_NUMBER = re.compile(r"\b(?:0x[0-9a-f]+|R\d+)")


class Effect(enum.Enum):
    """What goes on by itself once an instruction has issued."""

    COPY = enum.auto()  # an asynchronous copy
    COPIES = enum.auto()  # all copies so far become a group
    PRODUCTS = enum.auto()  # asynchronous products up to here become a group
    SCOREBOARD = enum.auto()


@dataclass(frozen=True, slots=True)
class Synchronisation:
    """``flight``: the groups that are waited for, but for the last ``kept``. ``barrier``: where
    warps meet, ``warps`` of them or, with 0, all of the program's.
    """

    effect: Effect | None = None
    flight: Effect | None = None
    kept: int = 0
    barrier: str | None = None
    warps: int = 0
    latency: float = 0.0


def synchronisation_of(one: Instruction) -> Synchronisation:
    """What an instruction waits for, and what it sets going."""
    numbers = _NUMBER.findall(one.text)
    effect = _effect(one)
    if "DEPBAR.LE" in one.text:
        flight = Effect.PRODUCTS if one.opcode == "WARPGROUP" else Effect.COPIES
        return Synchronisation(effect, flight, int(numbers[-1], 16))
    if one.opcode == "SYNCS" and "TRYWAIT" in one.modifiers:
        return Synchronisation(effect, Effect.PRODUCTS)
    if one.opcode == "BAR" and "ARV" not in one.modifiers:
        counted = numbers[1:] and numbers[1].startswith("0")
        warps = int(numbers[1], 16) // 32 if counted else 0
        return Synchronisation(effect, barrier=numbers[0], warps=warps, latency=BARRIER_LATENCY)
    if one.opcode == "WARPGROUP" and "ARRIVE" in one.modifiers:
        return Synchronisation(effect, barrier="warpgroup", warps=4, latency=4.0)
    return Synchronisation(effect)


def _effect(one: Instruction) -> Effect | None:
    if one.opcode == "LDGSTS":
        return Effect.COPY
    if one.opcode == "LDGDEPBAR":
        return Effect.COPIES
    if one.opcode.endswith("GMMA") and "gsb0" in one.text:
        return Effect.PRODUCTS
    if one.opcode.startswith("UTC") and one.opcode.endswith("MMA"):
        return Effect.PRODUCTS
    return None if one.done is None and one.read is None else Effect.SCOREBOARD
