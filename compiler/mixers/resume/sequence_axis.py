"""The axis that a sequence runs along, and what is known after its last row only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ....ir.errors import UnsupportedError
from ....ir.expression import Expr, Ref, Size
from ....ir.mixer import Map, Mixer, Recurrence
from ....ir.rewriting import walk
from ....ir.stages import values


@dataclass(frozen=True)
class SequenceAxis:
    """The dims whose positions are rows of one sequence, ``root``.

    ``derived``: dims whose length is computed from the sequence's. ``aim`` is what is to be done,
    for errors ("stepped").
    """

    mixer: Mixer
    root: str
    derived: frozenset[str]
    aim: str

    def has(self, dim: str) -> bool:
        """Whether positions along ``dim`` are rows of the sequence."""
        return (self.mixer.sequence(dim) or dim) == self.root

    def is_derived(self, dim: str) -> bool:
        """Whether the length of ``dim`` is computed from that of the sequence."""
        return dim in self.derived

    def depends(self, dim: str) -> bool:
        """Whether the length of ``dim`` is the sequence's or computed from it."""
        return self.has(dim) or dim in self.derived

    def positions(self, axes: Iterable[str]) -> list[str]:
        """The dims of the sequence among some axes, in alphabetical order."""
        return sorted(dim for dim in axes if self.has(dim))

    def error(self, what: str, term: Expr) -> UnsupportedError:
        """``what`` stands in the way, found at ``term``."""
        mixer = self.mixer
        place = "" if term.span is None else f"{mixer.path or mixer.name}:{term.span.line}: "
        return UnsupportedError(
            f"{place}{mixer.name} can't be {self.aim}: {what}\n"
            f"  found: {term}\n"
            f"  allowed: values of a row of {self.root} and of a bounded number of rows before it, "
            "running sums, and states\n"
            "  call it with the whole sequence, without a state"
        )


def sequence_axis(mixer: Mixer, aim: str) -> SequenceAxis:
    """The one sequence of a mixer: T, else what its recurrences run along or ``dims`` declares.

    Raises:
        UnsupportedError: there is none, or there are several.
    """
    given = {mixer.sequence(dim) or dim for i in mixer.inputs for dim in i.dims}
    run = [s.over for s in mixer.stages if isinstance(s, Recurrence)]
    roots = [mixer.sequence(dim) or dim for dim in run]
    found = list(dict.fromkeys(root for root in roots if root in given))
    found = found or list(dict.fromkeys(sequence for _, sequence in mixer.sequences))
    if "T" in given:  # what the language calls a sequence
        found = ["T"]
    if len(found) != 1:
        what = f"its recurrences run along {' and '.join(found)}" if found else "no sequence in it"
        raise UnsupportedError(
            f"{mixer.name} can't be {aim}: {what}\n"
            "  allowed: one sequence, along which recurrences run (`dims: {I: T, J: T}`, an axis T)"
        )
    axis = SequenceAxis(mixer, found[0], frozenset(), aim)
    derived: set[str] = set()
    for dim, size in mixer.sizes:
        names = {node.dim for node in walk(size) if isinstance(node, Size)}
        if not axis.has(dim) and any(axis.has(name) or name in derived for name in names):
            derived.add(dim)
    return SequenceAxis(mixer, found[0], frozenset(derived), aim)


def last_values(mixer: Mixer, has: Callable[[str], bool]) -> frozenset[str]:
    """Names whose value is known after the last row only: last states, and what is made of them.

    ``has``: whether positions along a dim are rows.
    """
    found = {
        state.name
        for stage in mixer.stages
        if isinstance(stage, Recurrence) and has(stage.over)
        for state in stage.states
    }
    made = [({let.name}, [let.value], set[str]()) for let in mixer.lets]
    for stage in mixer.stages:
        read = [value for _, value in values(stage)]
        match stage:
            case Map(equations):
                made += [({e.name}, [e.value], set()) for e in equations]
            case _:
                names = {ref.name for ref in stage.results}
                made.append((names, read, names if isinstance(stage, Recurrence) else set()))
    before = -1
    while before != len(found):
        before = len(found)
        for names, read, own in made:
            nodes = (node for value in read for node in walk(value))
            if any(isinstance(n, Ref) and n.name in found - own for n in nodes):
                found |= names
    return frozenset(found)


__all__ = ["SequenceAxis", "last_values", "sequence_axis"]
