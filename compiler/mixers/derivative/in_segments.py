"""What a backward pass keeps and what it computes again: by whole rows, or by segments of them.

Candidates are the values that the derivative of a mixer with states has for every row: the states
before each row, their cotangents, and what maps and chunks make of them (corrections, inverses).
They grow with the length times the size of a state. The choice is between

* all: each of them once, for all rows at once. Bytes: what the backward pass's plan has kept and
  between its kernels. Nothing is computed twice beyond what that plan does itself.
* segments of K rows: of the forward pass the states at the first row of each segment are kept, and
  a segment's rows are made again when the walk back gets there, from its last row to its first.
  Bytes: those of the plan at K rows, and T / K times the states; least near K = sqrt(T s / r) for
  states of s and rows of r bytes. Computed again: for derivatives that read rows of the forward
  pass (``Derivative.kept``) these, else nothing, since the derivative starts from states anyway.

Values of a row that depend on inputs only are always computed again: they are of a segment too.

A segment is the mixer that goes on from a state (``continue_sequence``), and its derivative that of
any mixer: the cotangents of what is handed over come from the segment after it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ....ir.errors import UnsupportedError
from ....ir.expression import Kind
from ....ir.mixer import Layout, Mixer
from ..resume.continue_sequence import continue_sequence
from ..resume.sequence_axis import SequenceAxis
from .differentiate import Derivative, differentiate


@dataclass(frozen=True)
class Handed:
    """A state from one segment to the next: the output of one, the input of the other."""

    after: str
    before: str
    real: bool


@dataclass(frozen=True)
class SegmentedDerivative:
    """The derivative of a mixer's first segment, and of any later one.

    ``outputs`` are the mixer's own real ones; ``rows_before`` is the input of ``later`` that takes
    how many rows went before it.
    """

    first: Derivative
    later: Derivative
    handed: tuple[Handed, ...]
    outputs: tuple[str, ...]
    axis: SequenceAxis
    rows_before: str | None


def in_segments(mixer: Mixer, wanted: Collection[str]) -> SegmentedDerivative:
    """The derivative of ``mixer`` by the inputs ``wanted``, segment by segment.

    Raises:
        UnsupportedError: a mixer whose rows need others than a state brings, or that hands over
            more the longer the sequence is, as an attention does its keys.
    """
    continued = continue_sequence(mixer)
    if continued.keys:
        raise UnsupportedError(f"{mixer.name} hands over keys: segments keep as much as the whole")
    layouts = {i.name: i.layout for i in mixer.inputs} | {o.name: o.layout for o in mixer.outputs}
    for name, layout in layouts.items():
        _check_axis(mixer, name, layout, continued.axis)
    real = [c for c in continued.carried if c.kind is Kind.REAL]
    more = {*wanted} & {i.name for i in continued.more.inputs} | {c.before for c in real}
    return SegmentedDerivative(
        differentiate(continued.start, wanted),
        differentiate(continued.more, more),
        tuple(Handed(c.after, c.before, c.kind is Kind.REAL) for c in continued.carried),
        tuple(o.name for o in mixer.outputs if o.kind is Kind.REAL),
        continued.axis,
        continued.rows_before,
    )


def _check_axis(mixer: Mixer, name: str, layout: Layout, axis: SequenceAxis) -> None:
    """Rows of a tensor are those of a segment where the axis is there once, by itself."""
    along = [dims for dims in layout if any(axis.depends(dim) for dim in dims)]
    if len(along) > 1 or any(len(dims) > 1 or axis.is_derived(dims[0]) for dims in along):
        raise UnsupportedError(
            f"{mixer.name}: {name} has rows of {axis.root} that segments do not cut"
        )


__all__ = ["Handed", "SegmentedDerivative", "in_segments"]
