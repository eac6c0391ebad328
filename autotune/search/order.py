"""What a search tries next: all of a small space, else samples, and single steps at the end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from ...ir.knob import Configuration
from .kernels import Space

Key = tuple[tuple[str, int], ...]
_POLISH = 5  # one part of so many of a budget is single steps from the best
_LARGEST_LISTED = 20_000


@dataclass
class Order:
    """The order of ``trials`` in a space."""

    space: Space
    trials: int
    random: Random = field(default_factory=Random)

    def planned(self, best: Sequence[Configuration], left: int, seen: Set[Key]) -> Step:
        """What the order says is next; None where a sampler is to suggest something.

        Args:
            best: configurations that were right, fastest first.
            left: trials that are still to come.
            seen: configurations that were tried, or are being tried by another process.
        """
        if self.is_grid:
            return self.drawn(seen)
        return self._step(best, seen) if left * _POLISH <= self.trials else None

    @cached_property
    def is_grid(self) -> bool:
        """Whether the budget is enough for every configuration that the space admits."""
        return len(list(itertools.islice(admitted(self.space), self.trials + 1))) <= self.trials

    def drawn(self, seen: Set[Key]) -> Step:
        """Any configuration that is left; None: there is none."""
        left = [c for c in self._all if key(c) not in seen]
        return self.random.choice(left) if left else None

    @cached_property
    def _all(self) -> list[dict[str, int]]:
        return list(admitted(self.space))

    def _step(self, best: Sequence[Configuration], seen: Set[Key]) -> Step:
        """One step from the best, or where all of those were tried, from the next best."""
        for configuration in best:
            near = [c for c in neighbours(self.space, configuration) if key(c) not in seen]
            if near:
                return self.random.choice(near)
        return None


Step = dict[str, int] | None


def key(configuration: Configuration) -> Key:
    """What tells configurations apart."""
    return tuple(sorted(configuration.items()))


def neighbours(space: Space, configuration: Configuration) -> Iterator[dict[str, int]]:
    """Configurations with one knob at the next smaller or the next larger of its choices."""
    for knob in space.knobs:
        choices = sorted(knob.choices)
        place = choices.index(configuration[knob.name])
        for value in (*choices[max(place - 1, 0) : place], *choices[place + 1 : place + 2]):
            changed = {**configuration, knob.name: value}
            if space.refusal(changed) is None:
                yield changed


def admitted(space: Space) -> Iterator[dict[str, int]]:
    """Every configuration that a space admits; of a huge space, the first."""
    names = [knob.name for knob in space.knobs]
    every = itertools.product(*(knob.choices for knob in space.knobs))
    for values in itertools.islice(every, _LARGEST_LISTED):
        configuration = dict(zip(names, values, strict=True))
        if space.refusal(configuration) is None:
            yield configuration
