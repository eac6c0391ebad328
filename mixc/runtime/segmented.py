"""A forward and a backward pass segment by segment: states at the starts of segments are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .passes import Passes
from .rows import Rows

if TYPE_CHECKING:
    from ..compiler.mixers.derivative.in_segments import SegmentedDerivative
    from ..ir.binding import Number
    from ..ir.mixer import Mixer

_START = "{} at the starts of segments"  # no input is called so


@dataclass(frozen=True)
class SegmentedPasses:
    """The two passes of a mixer by segments of ``rows`` rows of ``count``; see ``Passes``, whose
    part it takes. ``first`` and ``later`` are the passes of a first segment and of any later one.
    """

    mixer: Mixer
    derivative: SegmentedDerivative
    first: Passes
    later: Passes
    rows: int
    count: int

    @property
    def name(self) -> str:
        return self.mixer.name

    @cached_property
    def kept(self) -> tuple[str, ...]:
        """The states at the starts of segments but the first, one after another."""
        return tuple(_START.format(h.before) for h in self.derivative.handed)

    @cached_property
    def needed(self) -> frozenset[str]:
        """What the backward pass reads beside cotangents."""
        found = set(self.kept)
        for passes in (self.first, self.later):
            found |= {i.name for i in passes.derivative.backward.inputs}
            if passes.kept:
                found |= {i.name for i in passes.derivative.forward.inputs}
        return frozenset(found)

    @cached_property
    def cotangents(self) -> Mapping[str, str]:
        """What the backward pass calls the cotangent of an output."""
        return {name: f"cotangent of {name}" for name in self.derivative.outputs}

    @cached_property
    def _cuts(self) -> Rows:
        return Rows(self.mixer, self.derivative.axis)

    def run_forward(
        self, given: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> Mapping[str, Tensor]:
        """The outputs and what is kept, by name."""
        outputs: dict[str, Tensor] = {}
        starts: list[list[Tensor]] = []
        handed: dict[str, Tensor] = {}
        for segment in self._segments(given):
            if handed:
                starts.append(list(handed.values()))
            made = segment.passes.run_forward({**segment.given, **handed}, params)
            handed = {h.before: made[h.after] for h in self.derivative.handed}
            for output in self.mixer.outputs:
                place = self._cuts.outputs.get(output.name)
                if place is None:  # known after the last row
                    outputs[output.name] = made[output.name]
                else:
                    put_rows(
                        outputs, output.name, made[output.name], place, segment.start, self.count
                    )
        kept = zip(self.kept, zip(*starts, strict=True), strict=True)
        return {**outputs, **{name: torch.stack(states) for name, states in kept}}

    def run_backward(
        self, given: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> dict[str, Tensor]:
        """The gradients by input, from the last segment to the first."""
        gradients: dict[str, Tensor] = {}
        above: dict[str, Tensor] = {}  # cotangents of what the segment hands over
        for segment in reversed(list(self._segments(given))):
            known = {**segment.given, **self._handed(given, segment)}
            made = segment.gradients(known, self._above(segment, given, above), params)
            above = {
                h.after: made.pop(h.before) for h in self.derivative.handed if h.before in made
            }
            for name, gradient in made.items():
                if name in self._cuts.inputs:
                    place = self._cuts.inputs[name][0]
                    put_rows(gradients, name, gradient, place, segment.start, self.count)
                elif name in gradients:
                    gradients[name] = gradients[name] + gradient
                else:
                    gradients[name] = gradient
        return gradients

    # ------------------------------------------------------------------------------ segments

    def _segments(self, given: Mapping[str, Tensor]) -> Iterator[Segment]:
        """The segments with their own rows of the inputs."""
        places = self._cuts.inputs
        for start in range(0, self.count, self.rows):
            rows = min(self.rows, self.count - start)
            own = {
                name: tensor.narrow(places[name][0], start, rows) if name in places else tensor
                for name, tensor in given.items()
                if name not in self.kept
            }
            device = next(iter(given.values())).device
            if start and self.derivative.rows_before is not None:
                before = torch.tensor(start, dtype=torch.int32, device=device)
                own[self.derivative.rows_before] = before
            last = start + rows == self.count
            yield Segment(start, rows, last, self.later if start else self.first, own)

    def _handed(self, given: Mapping[str, Tensor], segment: Segment) -> dict[str, Tensor]:
        """The states that a segment starts from, as the forward pass has kept them."""
        if not segment.start:
            return {}
        number = segment.start // self.rows - 1
        pairs = zip(self.derivative.handed, self.kept, strict=True)
        return {h.before: given[name][number] for h, name in pairs}

    def _above(
        self, segment: Segment, given: Mapping[str, Tensor], after: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The cotangents of what a segment makes, by output.

        What is handed over has that of the segment ``after`` it; what is known after the last row
        only, has one there.
        """
        places, found = self._cuts.outputs, dict(after)
        for h, name in zip(self.derivative.handed, self.kept, strict=True):
            if h.real and h.after not in found:
                found[h.after] = torch.zeros_like(given[name][0])
        for output, name in self.cotangents.items():
            if output in places:
                found[output] = given[name].narrow(places[output], segment.start, segment.rows)
            elif segment.last:
                found[output] = given[name]
            elif output not in found:
                found[output] = torch.zeros_like(given[name])
        return found


@dataclass(frozen=True)
class Segment:
    """Rows of a sequence: where they start, how many, and the inputs of them."""

    start: int
    rows: int
    last: bool
    passes: Passes
    given: dict[str, Tensor]

    def gradients(
        self,
        known: Mapping[str, Tensor],
        above: Mapping[str, Tensor],
        params: Mapping[str, Number],
    ) -> dict[str, Tensor]:
        """The gradients by input, from cotangents by output; what is kept of rows is made again."""
        passes, made = self.passes, dict[str, Tensor]()
        if passes.kept:
            forward = passes.run_forward(known, params)
            made = {name: forward[name] for name in passes.kept}
        named = {name: above[output] for output, name in passes.cotangents.items()}
        return passes.run_backward({**known, **made, **named}, params)


def put_rows(
    whole: dict[str, Tensor], name: str, rows: Tensor, place: int, start: int, count: int
) -> None:
    """``rows`` from ``start`` on, of ``count`` along the axis ``place`` of a tensor."""
    if name not in whole:
        shape = list(rows.shape)
        shape[place] = count
        whole[name] = rows.new_zeros(shape)  # rows that nothing depends on have a gradient of 0
    whole[name].narrow(place, start, rows.shape[place]).copy_(rows)


__all__ = ["SegmentedPasses"]
