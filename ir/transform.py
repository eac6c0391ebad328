"""Fourier transforms of whole buffers: what a task of a plan computes, and the op that does it.

No grid of programs shares one out: each backend has it done by the library of its device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .expression import Call, Expr, Reduce
from .knob import Knob
from .rewriting import every_node

# From so many positions on a transform is worth its passes over memory; a length of the call's own
# is one of these, but for the last choice.
NEVER = 1 << 30
FFT_TERMS = Knob("fft_terms", (1, 32, NEVER), 32, "terms that a Fourier sum is transformed from")

Placed = tuple[str, list[int]]  # a buffer, and where its axes stand in another order


@dataclass(frozen=True, slots=True)
class Operand:
    """A buffer, and what its axes are called here, in the buffer's order."""

    buffer: str
    dims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """An axis that is summed over, and the one of the same length that stands in its place."""

    over: str
    row: str
    sign: int  # of the exponent


@dataclass(frozen=True, slots=True)
class Transform:
    """``parts``, re + i im, = the sum of (real + i imaginary) e^(i angle), where

    angle = the sum over all turns of sign * 2 pi * over * row / n, for an axis of n positions.
    Without ``imaginary`` what is transformed is real; one of the parts may be left out.
    """

    real: Operand
    imaginary: Operand | None
    turns: tuple[Turn, ...]
    parts: tuple[str | None, str | None]

    @property
    def operands(self) -> tuple[Operand, ...]:
        """What is transformed."""
        return (self.real,) if self.imaginary is None else (self.real, self.imaginary)

    @property
    def results(self) -> tuple[str, ...]:
        """The buffers that are filled."""
        return tuple(filter(None, self.parts))

    def with_part(self, place: int, name: str | None) -> Transform:
        """The same with another buffer for the real (0) or the imaginary part (1)."""
        real, imaginary = self.parts
        parts = (name, imaginary) if place == 0 else (real, name)
        return Transform(self.real, self.imaginary, self.turns, parts)

    @property
    def axes(self) -> frozenset[str]:
        """Those of the results."""
        kept = {*self.real.dims} - {turn.over for turn in self.turns}
        return frozenset(kept | {turn.row for turn in self.turns})

    def order(self, result: tuple[str, ...]) -> tuple[str, ...]:
        """The operands' dims in the order of a result's: a row's place is that of its sum."""
        over = {turn.row: turn.over for turn in self.turns}
        return tuple(over.get(dim, dim) for dim in result)

    def places(
        self, order: tuple[str, ...], dims: Callable[[str], tuple[str, ...]]
    ) -> tuple[list[Placed], list[Placed | None]]:
        """The operands, and the parts of the result, with the places of their own axes in
        ``order``, which is of the operands' dims; ``dims`` tells a buffer's."""
        given = [(o.buffer, [o.dims.index(dim) for dim in order]) for o in self.operands]
        made: list[Placed | None] = []
        for name in self.parts:
            own = () if name is None else self.order(dims(name))
            made.append(None if name is None else (name, [own.index(dim) for dim in order]))
        return given, made

    def axis_signs(self, order: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
        """The turns as axes of operands in this order, each with its sign."""
        return tuple((order.index(turn.over), turn.sign) for turn in self.turns)

    def faults(self, dims: dict[str, tuple[str, ...]]) -> Iterator[str]:
        """What is wrong, if anything; ``dims``: the axes of buffers."""
        own = {*self.real.dims}
        overs, rows = ([getattr(t, e) for t in self.turns] for e in ("over", "row"))
        for operand in self.operands:
            if len(operand.dims) != len(dims.get(operand.buffer, ())) or {*operand.dims} != own:
                yield f"transforms {operand.buffer} along {', '.join(operand.dims)}"
        if not self.turns or not {*overs} <= own or len({*overs}) < len(overs):
            yield f"sums over {', '.join(overs)} of {', '.join(self.real.dims)}"
        if len({*rows}) < len(rows) or {*rows} & (own - {*overs}):
            yield f"has the rows {', '.join(rows)} beside {', '.join(self.real.dims)}"
        if {turn.sign for turn in self.turns} - {1, -1} or not self.results:
            yield "has no result, or no sign"
        for name in self.results:
            if frozenset(dims.get(name, ())) != self.axes:
                yield f"fills {name}, which has other axes"


def has_wave(expr: Expr, over: str) -> bool:
    """Whether sums and products lead to a cosine or a sine that varies along ``over``."""
    match expr:
        case Call("cos" | "sin"):
            return over in expr.axes
        case Call("add" | "sub" | "mul" | "div" | "neg", args):
            return over in expr.axes and any(has_wave(arg, over) for arg in args)
    return False


def may_have_fourier_sums(exprs: Iterable[Expr]) -> bool:
    """Whether some sum is over an axis of a cosine or a sine."""
    sums = (n for n in every_node(exprs) if isinstance(n, Reduce) and n.op == "sum")
    return any(has_wave(one.x, dim) for one in sums for dim in one.over)


__all__ = [
    "FFT_TERMS",
    "NEVER",
    "Operand",
    "Transform",
    "Turn",
    "has_wave",
    "may_have_fourier_sums",
]
