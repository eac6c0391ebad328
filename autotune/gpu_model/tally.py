"""Cycles, or shares of them, by what they went to."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


class Tally(dict[Key, float]):
    """A number for each key, 0 where none was added.

    >>> tally = Tally()
    >>> tally.add("barrier", 1.5)
    >>> tally.add("barrier", 1.0)
    >>> tally.most(1), tally["issue slot"]
    ([('barrier', 2.5)], 0.0)
    """

    def __missing__(self, key: Key) -> float:
        """What nothing was added to."""
        return 0.0

    def add(self, key: Key, number: float) -> None:
        """Count more for a key."""
        self[key] += number

    def less(self, other: Tally[Key]) -> Tally[Key]:
        """What this has more than another, key by key."""
        return Tally({k: n - other[k] for k, n in self.items() if n > other[k]})

    def most(self, count: int) -> list[tuple[Key, float]]:
        """The largest, the largest first."""
        return sorted(self.items(), key=lambda item: -item[1])[:count]
