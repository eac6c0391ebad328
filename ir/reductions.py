"""What each reduction repeats, and the number that changes nothing under it.

A reduction of no positions gives that number. Integers have no infinity: theirs is the largest
number of their width, with either sign, so that it can be negated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

# The elementwise operation that takes in one more position.
REPEATED: Mapping[str, str] = {
    "sum": "add",
    "max": "max",
    "min": "min",
    "prod": "mul",
    "any": "or",
    "all": "and",
}
# What changes nothing under each operation; with it as the addition of a semiring, its zero.
NEUTRAL: Mapping[str, float] = {
    "add": 0.0,
    "mul": 1.0,
    "max": -math.inf,
    "min": math.inf,
    "or": False,
    "and": True,
    "logaddexp": -math.inf,
}


def identity(reduction: str) -> float:
    """What a reduction of no real numbers, or of no truths, gives."""
    return NEUTRAL[REPEATED[reduction]]


def whole_identity(reduction: str, bits: int) -> int:
    """What a reduction of no integers of a width gives."""
    number = identity(reduction)
    if math.isinf(number):
        largest: int = 2 ** (bits - 1) - 1
        return largest if number > 0 else -largest
    return int(number)


__all__ = ["NEUTRAL", "REPEATED", "identity", "whole_identity"]
