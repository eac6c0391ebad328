"""A mixer with the inner loops of its recurrences laid out in time, where their rounds allow it.

T rows of R rounds each are T * R rows of one recurrence, over an axis of the mixer of that size;
what a row makes is read at the round that made it. A derivative then needs no inner loop.
"""

from __future__ import annotations

from dataclasses import replace

from ....ir.expression import Read
from ....ir.mixer import Equation, Map, Mixer, Recurrence, Stage
from ....ir.stages import names_taken, unused_name
from ...analysis.recurrence.flatten import flatten


def rounds_in_time(mixer: Mixer) -> Mixer:
    """The mixer without the inner loops that can be laid out in time."""
    taken = names_taken(mixer)
    stages: list[Stage] = []
    sizes = list(mixer.sizes)
    for stage in mixer.stages:
        flat = None
        if isinstance(stage, Recurrence):
            flat = flatten(stage, unused_name(f"{stage.over}_ROUNDS", taken))
        if flat is None:
            stages.append(stage)
            continue
        taken.add(flat.axis.lower())
        sizes.append((flat.axis, flat.size))
        rows = (Equation(name, Read(ref, ((flat.axis, place),))) for name, ref, place in flat.rows)
        stages += [replace(flat.recurrence, texts=()), Map(tuple(rows))]
    return replace(mixer, stages=tuple(stages), sizes=tuple(sizes))


__all__ = ["rounds_in_time"]
