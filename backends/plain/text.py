"""Pieces of torch code whose axes have names, and how they line up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...ir.expression import Kind

# Python's precedence, as far as the code here uses it.
COMPARE, OR, AND, SUM, PRODUCT, UNARY, ATOM = range(7)


@dataclass(frozen=True, slots=True)
class Piece:
    """An expression in torch, with the dim of each of its axes, in the order of the code's dims.

    A piece that is no ``tensor`` is a number of Python's.
    """

    code: str
    dims: tuple[str, ...] = ()
    kind: Kind = Kind.REAL
    level: int = ATOM
    tensor: bool = True

    def at(self, level: int) -> str:
        """The code, in parentheses if it binds weaker than ``level``."""
        return self.code if self.level >= level else f"({self.code})"

    def of_kind(self, kind: Kind) -> Piece:
        """The piece as booleans, integers or float64; a number of Python's is what it has to be."""
        if not self.tensor or kind is self.kind:
            return self
        if kind is Kind.BOOL:
            return Piece(f"{self.at(SUM)} != 0", self.dims, kind, COMPARE)
        method = "double" if kind is Kind.REAL else "long"
        return Piece(f"{self.at(ATOM)}.{method}()", self.dims, kind)


@dataclass(frozen=True)
class Order:
    """The order of all dims, in which every piece has its axes."""

    dims: tuple[str, ...]

    def of(self, dims: Iterable[str]) -> tuple[str, ...]:
        """``dims`` in this order, each once."""
        wanted = set(dims)
        return tuple(dim for dim in self.dims if dim in wanted)

    def aligned(self, piece: Piece, dims: Sequence[str]) -> Piece:
        """A piece that broadcasts against others that have all of ``dims``, in this order."""
        if not piece.dims:
            return piece
        first = dims.index(piece.dims[0])
        missing = [dim not in piece.dims for dim in dims[first:]]
        if not any(missing):
            return piece
        last = len(missing) - missing[::-1].index(True)
        places = ["None" if absent else ":" for absent in missing[:last]]
        places += ["..."] if len(missing) > last and first else []
        index = ", ".join(places)
        return replace(piece, code=f"{piece.at(ATOM)}[{index}]", level=ATOM)

    def permuted(self, code: str, dims: Sequence[str], wanted: Sequence[str]) -> str:
        """Code for a tensor's axes in another order; one that has it already stays as it is."""
        if tuple(dims) == tuple(wanted):
            return code
        places = [list(dims).index(dim) for dim in wanted]
        moved = [n for n in range(len(places)) if places[n] != n]
        if len(moved) == 2:
            return f"{code}.transpose({moved[0]}, {moved[1]})"
        return f"{code}.permute({', '.join(map(str, places))})"


def order_of(layouts: Iterable[Sequence[str]], others: Iterable[str]) -> Order:
    """An order of dims that most layouts keep to; ``others`` come last."""
    before: dict[str, set[str]] = {}
    for layout in layouts:
        for place, dim in enumerate(layout):
            before.setdefault(dim, set()).update(layout[:place])
    rest, found = list(dict.fromkeys([*before, *others])), list[str]()
    while rest:
        chosen = min(rest, key=lambda dim: len(before.get(dim, set()) & set(rest) - {dim}))
        rest.remove(chosen)
        found.append(chosen)
    return Order(tuple(found))


def bare(code: str) -> str:
    """Code without parentheses around all of it."""
    if not (code.startswith("(") and code.endswith(")")):
        return code
    depth = 0
    for place, letter in enumerate(code):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return bare(code[1:-1]) if place == len(code) - 1 else code
    return code


__all__ = [
    "AND",
    "ATOM",
    "COMPARE",
    "OR",
    "PRODUCT",
    "SUM",
    "UNARY",
    "Order",
    "Piece",
    "bare",
    "order_of",
]
