"""Where the size of every dim comes from, in an order that resolves: found once for a mixer.

``bind_sizes`` says what sizes are and why shapes don't fit. This is the same for shapes that do, as
steps that take no search: what a launch needs at every call.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .expression import Expr, Scalar, Size
from .mixer import Mixer
from .rewriting import walk


@dataclass(frozen=True, slots=True)
class FromAxis:
    """``dim`` to the ``power`` is an axis of an input over the sizes of ``others``."""

    dim: str
    input: str
    axis: int
    others: tuple[str, ...] = ()
    power: int = 1


@dataclass(frozen=True, slots=True)
class FromDim:
    """``dim`` is as long as ``other``: positions of one sequence."""

    dim: str
    other: str


@dataclass(frozen=True, slots=True)
class FromSizes:
    """``dim`` is derived, by ``dims`` of the spec."""

    dim: str
    value: Expr


Source = FromAxis | FromDim | FromSizes


def size_sources(mixer: Mixer, known: Collection[str] = ()) -> list[Source]:
    """One source for every dim but the ``known`` ones that can be told from the inputs."""
    solver = _Solver(mixer, set(known))
    while solver.step():
        pass
    return solver.found


class _Solver:
    def __init__(self, mixer: Mixer, known: set[str]) -> None:
        self.mixer, self.known = mixer, known
        self.found: list[Source] = []
        self.axes = [
            (given.name, axis, product)
            for given in mixer.inputs
            for axis, product in enumerate(given.layout)
        ]
        # An axis of one dim tells it without a division.
        self.axes.sort(key=lambda entry: len(entry[2]))

    def step(self) -> bool:
        """Find one more; whether there was one."""
        source = self._from_dim() or self._from_axis(1) or self._from_sizes()
        source = source or self._from_axis(len(self.axes))
        if source is not None:
            self.known.add(source.dim)
            self.found.append(source)
        return source is not None

    def _from_dim(self) -> FromDim | None:
        for dim, sequence in self.mixer.sequences:
            for missing, other in ((dim, sequence), (sequence, dim)):
                if missing not in self.known and other in self.known:
                    return FromDim(missing, other)
        return None

    def _from_sizes(self) -> FromSizes | None:
        for dim, value in self.mixer.sizes:
            if dim not in self.known and self._needed(value) <= self.known:
                return FromSizes(dim, value)
        return None

    def _from_axis(self, factors: int) -> FromAxis | None:
        for name, axis, product in self.axes:
            missing = {self.mixer.sequence(d) or d for d in product if d not in self.known}
            if len(product) <= factors and len(missing) == 1:
                unknown = [d for d in product if d not in self.known]
                others = tuple(d for d in product if d in self.known)
                return FromAxis(unknown[0], name, axis, others, len(unknown))
        return None

    def _needed(self, value: Expr) -> set[str]:
        """The dims that an expression depends on, also through params."""
        needed: set[str] = set()
        pending, seen = [value], set[str]()
        while pending:
            for node in walk(pending.pop()):
                if isinstance(node, Size):
                    needed.add(node.dim)
                elif isinstance(node, Scalar) and node.name not in seen:
                    seen.add(node.name)
                    pending.append(self.mixer.param(node.name).value)
        return needed


__all__ = ["FromAxis", "FromDim", "FromSizes", "Source", "size_sources"]
