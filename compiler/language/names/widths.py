"""Axes of one length that are no positions of a sequence: a step mixes a state along them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ....ir.expression import Size
from ....ir.mixer import Attention, Map, Recurrence, Select, Stage, assignments
from ....ir.rewriting import bound_axes, walk
from .dims import Dims


def settle_widths(dims: Dims, stages: Sequence[Stage]) -> None:
    """``{P: D}`` says no more than that P is as long as D where a step reads a state at other
    positions of D and no attention or loop goes along either: a kernel holds such an axis whole."""
    mixed = {dim for stage in stages if isinstance(stage, Recurrence) for dim in _mixed(stage)}
    walked = {dim for stage in stages for dim in _walked(stage)}
    for sequence in sorted({*dims.sequences.values()}):
        members = {sequence, *(dim for dim, of in dims.sequences.items() if of == sequence)}
        if members.isdisjoint(mixed) or members & walked:
            continue
        known = members & (dims.tensor | dims.sizes.keys())
        first = sequence if sequence in known or not known else min(known)
        for dim in sorted(members):
            dims.sequences.pop(dim, None)
            if dim != first:
                dims.sizes.setdefault(dim, Size(first))


def _mixed(stage: Recurrence) -> Iterator[str]:
    """The axes that a state lists and along which a row's values need other positions."""
    listed = {dim for state in stage.states for dim in state.listed}
    for equation, _ in assignments(stage.step):
        for node in walk(equation.value):
            yield from listed & {*bound_axes(node)}


def _walked(stage: Stage) -> Iterable[str]:
    match stage:
        case Attention():
            return {stage.over, *stage.queries}
        case Recurrence():
            return {stage.over, *(dim for _, rounds in assignments(stage.step) for dim in rounds)}
        case Map() | Select():  # channels are chosen among, too
            return ()
