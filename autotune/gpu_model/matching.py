"""Which loop of the source a loop of the machine code is, by the lines of its instructions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .instructions import Instruction, Line
from .paths import Paths
from .turns import SourceLoop

_UNROLLED = 1.7  # times as long as its remainder, at least, is a loop that was unrolled


@dataclass(frozen=True, slots=True)
class Match:
    """A loop of the machine code, with the source's: ``unrolled`` of its turns in each.

    ``remainder``: it makes the turns that are left of ``unrolled``.
    """

    loop: SourceLoop | None
    unrolled: int = 1
    remainder: bool = False

    def turns(self, of_source: Mapping[int, float]) -> float:
        """Turns of the machine code's loop; one that the source doesn't have turns once."""
        if self.loop is None:
            return 1.0
        wanted = of_source.get(self.loop.first, 0.0)
        return wanted % self.unrolled if self.remainder else wanted // self.unrolled


def is_library(line: Line) -> bool:
    """Whether a line is of Triton's own functions, which kernels call for sums and scans."""
    return Path(line.file).parts[-3:-1] == ("triton", "language")


def match_loops(paths: Paths, source: Sequence[SourceLoop]) -> tuple[Match, ...]:
    """The matches of all loops of the machine code, in their order.

    An outer loop is matched before those inside it, which then are its matches' inner loops. Two
    that match one loop of the source are it unrolled, and the turns that are left.
    """
    found: dict[int, SourceLoop | None] = {}
    for first, last in paths.loops.items():
        around = [f for f, end in paths.loops.items() if f < first and last <= end]
        outer = found[around[-1]] if around else None
        found[first] = _voted(paths.program[first : last + 1], source, outer, bool(around))
    return tuple(_match(first, found, paths) for first in paths.loops)


def _voted(
    body: Sequence[Instruction], source: Sequence[SourceLoop], outer: SourceLoop | None, inner: bool
) -> SourceLoop | None:
    votes: Counter[SourceLoop] = Counter()
    for one in body:
        if not is_library(one.line):
            around = [s for s in source if s.first <= one.line.number <= s.last]
            deeper = [s for s in around if s.parent is outer] if inner else around[:1]
            votes.update(deeper[:1] or [s for s in around if inner and outer not in s.lineage][:1])
    return votes.most_common(1)[0][0] if votes else None


def _match(first: int, found: Mapping[int, SourceLoop | None], paths: Paths) -> Match:
    loop = found[first]
    alike = {f: paths.loops[f] - f for f, other in found.items() if other == loop}
    if loop is None or len(alike) == 1:
        return Match(loop)
    longest, shortest = max(alike.values()), min(alike.values())
    if longest < _UNROLLED * shortest:
        return Match(loop, len(alike))
    return Match(loop, round(longest / shortest), alike[first] < longest)
