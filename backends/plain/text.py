"""Pieces of torch code whose axes have names, and how they line up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...ir.expression import Kind
from ..python_text import Text, infix


@dataclass(frozen=True, slots=True)
class Piece:
    """An expression in torch, with the dim of each of its axes, in the order of the code's dims.

    A piece that is no ``tensor`` is a number of Python's.
    """

    text: Text
    dims: tuple[str, ...] = ()
    kind: Kind = Kind.REAL
    tensor: bool = True

    @property
    def code(self) -> str:
        """The expression on one line."""
        return self.text.code

    def of_kind(self, kind: Kind) -> Piece:
        """The piece as booleans, integers or float64; a number of Python's is what it has to be."""
        if not self.tensor or kind is self.kind:
            return self
        if kind is Kind.BOOL:
            return Piece(infix(self.text, "!=", Text("0")), self.dims, kind)
        method = "double" if kind is Kind.REAL else "long"
        return Piece(self.text.then(f".{method}()"), self.dims, kind)


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
        return replace(piece, text=piece.text.then(f"[{', '.join(places)}]"))

    def permuted(self, text: Text, dims: Sequence[str], wanted: Sequence[str]) -> Text:
        """A tensor's axes in another order; one that has it already stays as it is."""
        if tuple(dims) == tuple(wanted):
            return text
        places = [list(dims).index(dim) for dim in wanted]
        moved = [n for n in range(len(places)) if places[n] != n]
        if len(moved) == 2:
            return text.then(f".transpose({moved[0]}, {moved[1]})")
        return text.then(f".permute({', '.join(map(str, places))})")


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


__all__ = ["Order", "Piece", "order_of"]
