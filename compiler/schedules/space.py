"""The knobs of a schedule: what may be tuned of the programs that it makes."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.knob import Knob

NUM_WARPS = Knob(
    "num_warps", (2, 4, 8), 4, "more warps spread the tile's registers, fewer keep it together"
)
NUM_STAGES = Knob(
    "num_stages",
    (1, 2, 3, 4),
    2,
    "blocks of keys in flight hide the memory, each takes shared memory",
)


@dataclass(frozen=True, slots=True)
class Space:
    """``shared_out`` cuts the dims of the grid, ``walked`` those that a program goes through.

    A schedule that is not ``tuned`` has knobs only where a plan has no kernel of one that is.
    """

    shared_out: Knob
    walked: Knob
    num_warps: Knob = NUM_WARPS
    num_stages: Knob = NUM_STAGES
    tuned: bool = True

    @property
    def launch(self) -> tuple[Knob, Knob]:
        """What a launch takes beside the blocks."""
        return self.num_warps, self.num_stages

    def knob(self, name: str) -> Knob:
        """The knob called ``name``."""
        knobs = (self.shared_out, self.walked, self.num_warps, self.num_stages)
        return next(knob for knob in knobs if knob.name == name)


__all__ = ["NUM_STAGES", "NUM_WARPS", "Space"]
