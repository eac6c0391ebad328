"""A matrix state that rows read along both of its axes, walked once for each axis.

    for t: a = k . S;  b = S . v;  S = d S + u a + ...
    --> for t: a = k . S;  S = d S + u a + ...      programs share out the columns
        for t: b = S . v;  S = d S + u a + ...      programs share out the rows; a is known

One walk that reads along both axes has the state whole. That of two walks has a part of it in each
program, and what the second one makes of its rows does not wait for a system to be solved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...ir.mixer import Equation, Recurrence
from ...ir.names import names_in
from ...ir.recurrence_forms import Classified, Matrix
from ..analysis.recurrence.classify import classify


@dataclass(frozen=True, slots=True)
class Apart:
    """``first`` reads along the key axis, ``second`` along the other, given rows of the first.

    ``handed`` are the names of these rows.
    """

    first: Recurrence
    second: Recurrence
    handed: frozenset[str]


def axes_apart(stage: Recurrence) -> Apart | None:
    """The two walks of a recurrence of one matrix state; None where one walk has to do all.

    ``stage``: with names from outside it inlined. In ``second`` the rows that the first one makes
    are names that its step does not make.
    """
    lines = [line for line in stage.step if isinstance(line, Equation)]
    states = {state.name for state in stage.states}
    names = [line.name for line in lines if line.name not in states]
    found = classify(stage)
    if len(lines) < len(stage.step) or len({*names}) < len(names) or len(found.components) > 1:
        return None
    across = _across(found)
    others = [line for line in lines if line.name not in across]
    if not across or across & names_in(*(line.value for line in others)):
        return None
    first = replace(stage, step=tuple(others), texts=())
    rest = tuple(line for line in lines if line.name in across | states)
    second = replace(stage, step=rest, texts=())
    if _is_corrected(classify(second)):
        return None
    handed = frozenset(names) - across & names_in(*(line.value for line in rest))
    return Apart(first, second, handed)


def _across(found: Classified) -> frozenset[str]:
    """The step's own names that read the state along its columns' axis alone, if others read it
    along its key axis."""
    (form,) = found.components
    if not isinstance(form, Matrix):
        return frozenset()
    key = {r.ref.name for r in found.readings if r.axes == (form.key_axis,)}
    values = {r.ref.name for r in found.readings} - key
    reads = {name: names_in(value) for name, value in found.own}
    across = {name for name, read in reads.items() if read & values}
    mixed = any(reads[name] & key for name in across)
    return frozenset() if mixed or not key else frozenset(across)


def _is_corrected(found: Classified) -> bool:
    return any(not isinstance(form, Matrix) or form.corrected for form in found.components)


__all__ = ["Apart", "axes_apart"]
