"""Whether a backward pass goes by segments of rows, and of how many; see ``in_segments``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from ..compiler.mixers.derivative.in_segments import SegmentedDerivative
from ..ir.binding import shape_of
from ..ir.mixer import Mixer
from ..ir.plan_memory import derived_sizes
from .kept import Kept
from .passes import Passes
from .segmented import SegmentedPasses

_FEWEST = 64  # rows of a segment, as many as a chunk has
_STATE_BYTES = 4  # of an element that is handed over
# With all kept, up to so many times what a call is given and makes is worth it, and any so little;
# more on a GPU, which the rows of a segment do not fill.
_LIMIT, _LITTLE_BYTES, _LITTLE_BYTES_GPU = 8, 1 << 28, 1 << 32


@dataclass(frozen=True)
class Segmenting:
    """The passes of a mixer's segments, of any number of rows."""

    mixer: Mixer
    derivative: SegmentedDerivative
    first: Passes
    later: Passes

    def passes(
        self, whole: Passes, sizes: Mapping[str, int], kept: Kept
    ) -> Passes | SegmentedPasses:
        """The passes at some sizes: ``whole`` where segments would keep no less."""
        count = sizes[self.derivative.axis.root]
        rows = kept if isinstance(kept, int) else self.rows(sizes, kept)
        more = self.kept_bytes(sizes, rows) >= whole.kept_bytes(sizes)
        if rows >= count or (more and not isinstance(kept, int)):
            return whole
        return SegmentedPasses(self.mixer, self.derivative, self.first, self.later, rows, count)

    def rows(self, sizes: Mapping[str, int], kept: Kept) -> int:
        """The rows of a segment: as many as fit the limit, or those that keep least."""
        taken = {rows: self.kept_bytes(sizes, rows) for rows in self._choices(sizes)}
        fitting = [rows for rows, size in taken.items() if size <= limit_bytes(self.later, sizes)]
        if kept == "least" or not fitting:
            return min(taken, key=lambda rows: taken[rows])
        return max(fitting)

    def _choices(self, sizes: Mapping[str, int]) -> Iterator[int]:
        rows, count = _FEWEST, sizes[self.derivative.axis.root]
        yield rows
        while (rows := 2 * rows) < count:
            yield rows

    def kept_bytes(self, sizes: Mapping[str, int], rows: int) -> int:
        """What segments of ``rows`` keep: the states at their starts, and the rows of one."""
        axis = self.derivative.axis
        starts = -(-sizes[axis.root] // rows) - 1
        own = {dim: rows if axis.has(dim) else size for dim, size in sizes.items()}
        return starts * self.start_bytes(sizes) + self.later.kept_bytes(own)

    def start_bytes(self, sizes: Mapping[str, int]) -> int:
        """The states at the start of a segment."""
        mixer = self.later.derivative.forward
        known = derived_sizes(mixer, sizes)
        names = {h.before for h in self.derivative.handed}
        shapes = (shape_of(i.layout, known) for i in mixer.inputs if i.name in names)
        return _STATE_BYTES * sum(prod(shape) for shape in shapes)


def is_little(whole: Passes, sizes: Mapping[str, int], wide: bool) -> bool:
    """Whether all that a backward pass could keep is worth its memory.

    ``wide``: kernels run on a machine that takes many rows at once.
    """
    little = _LITTLE_BYTES_GPU if wide else _LITTLE_BYTES
    return whole.kept_bytes(sizes) <= max(limit_bytes(whole, sizes), little)


def limit_bytes(passes: Passes, sizes: Mapping[str, int]) -> int:
    """What is worth keeping, beside what a call is given and makes."""
    return _LIMIT * passes.given_bytes(sizes)


__all__ = ["Segmenting", "is_little"]
