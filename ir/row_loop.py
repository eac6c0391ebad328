"""A loop on the host: kernels that run once for each row of a recurrence, one row after another.

The kernels of a row are tasks like any other; they see a row of a buffer as a buffer of its own, a
view, and a state in two pieces of memory that change places from row to row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Handover:
    """A state by the names that its memory has.

    ``start`` is filled before the first row. A row reads ``before`` and fills ``after``, which the
    next row reads as ``before``; after the last row what the state is has the name ``end``. Two of
    these, ``before`` and ``end``, are names for the memory of the others.
    """

    start: str
    before: str
    after: str
    end: str

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return self.start, self.before, self.after, self.end


@dataclass(frozen=True, slots=True)
class RowLoop:
    """Rows along ``over``, as many as the call has; ``reverse``: the last one first.

    ``rows`` pair a view with the buffer of whose row it is, for what kernels before the loop have
    filled; ``made`` likewise what the rows fill. The kernels that run are those that a view or a
    state leads to: see ``stretch``.
    """

    over: str
    reverse: bool
    rows: tuple[tuple[str, str], ...]
    made: tuple[tuple[str, str], ...]
    states: tuple[Handover, ...]

    @property
    def views(self) -> tuple[str, ...]:
        """The names that have no memory of their own."""
        pairs = (view for view, _ in (*self.rows, *self.made))
        return (*pairs, *(n for state in self.states for n in (state.before, state.end)))

    @property
    def needs(self) -> frozenset[str]:
        """The buffers that are filled before the first row."""
        return frozenset(whole for _, whole in self.rows) | {s.start for s in self.states}

    @property
    def gives(self) -> frozenset[str]:
        """The buffers that are whole after the last row."""
        return frozenset(whole for _, whole in self.made) | {s.end for s in self.states}

    @property
    def filled(self) -> frozenset[str]:
        """What the kernels of a row have to fill."""
        return frozenset(view for view, _ in self.made) | {s.after for s in self.states}

    @property
    def seen(self) -> frozenset[str]:
        """What a row finds."""
        return frozenset(view for view, _ in self.rows) | {s.before for s in self.states}


Access = tuple[Collection[str], Collection[str]]  # the names that a kernel reads, and writes


def members(loop: RowLoop, steps: Sequence[Access]) -> list[int]:
    """The places of the kernels that the loop runs, in order: what reads or fills something of a
    row, and what reads anything that those make."""
    own, places = set(loop.seen | loop.filled), []
    for place, (reads, writes) in enumerate(steps):
        if not own.isdisjoint((*reads, *writes)):
            own.update(writes)
            places.append(place)
    return places


def stretch(loop: RowLoop, steps: Sequence[Access]) -> range:
    """The places of the kernels that the loop runs, which stand one after another."""
    places = members(loop, steps)
    return range(places[0], places[-1] + 1) if places else range(0)


__all__ = ["Access", "Handover", "RowLoop", "members", "stretch"]
