"""Hypothesis' draws by the few words that the generators are written in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Choices:
    """What comes first in a list, ``False`` and small numbers are what examples shrink to."""

    draw: Draw

    def pick(self, options: Sequence[T]) -> T:
        """One of several."""
        picked: T = self.draw(st.sampled_from(options))
        return picked

    def often(self, options: dict[T, int]) -> T:
        """One of several, each as often as its number says."""
        return self.pick([option for option, times in options.items() for _ in range(times)])

    def chance(self, percent: int) -> bool:
        """True in so many of a hundred draws."""
        return self.whole(0, 99) >= 100 - percent

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends among them."""
        number: int = self.draw(st.integers(low, high))
        return number

    def some(self, options: Sequence[T], least: int = 0, most: int | None = None) -> list[T]:
        """Several different ones, in the order they are listed in."""
        most = len(options) if most is None else min(most, len(options))
        places = self.draw(
            st.sets(st.integers(0, len(options) - 1), min_size=least, max_size=most)
            if options
            else st.just(set())
        )
        return [options[place] for place in sorted(places)]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """All, in another order."""
        order: list[T] = self.draw(st.permutations(list(options)))
        return order
