"""Sums by group over places that a table lists block by block: by block, not by place.

    sum(x, M, P, J=blocks[M=m, S=p // 64] * 64 + p % 64)
    -->  sum(where(blocks == j // 64, x[P=s * 64 + j % 64], 0), M, S)

Of a block that is listed, one place alone falls to each j, so that no other is looked at: a 64th
of the terms. It is how what listed keys get from those who read them is brought together, in the
order of the list, whatever runs beside.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.expression import Call, Expr, Index, Read, Reduce, Ref, Size, call
from ...ir.host import evaluate_host
from ...ir.rewriting import transform, walk
from ..passes.fold_constants import fold_constants
from ..tiles.moving import move
from .plan_builder import PlanBuilder

HELD = 16  # so many blocks of a list are in a tile; longer lists are walked


def by_blocks(builder: PlanBuilder, expr: Expr) -> Expr:
    """``expr`` with its sums by group over listed blocks."""
    rewriting = _ByBlocks(builder)
    return transform(expr, rewriting.change)


@dataclass(frozen=True)
class _ByBlocks:
    builder: PlanBuilder

    def change(self, node: Expr) -> Expr | None:
        match node:
            case Reduce("sum", x, over, None, ((dim, index),)) if dim not in x.axes:
                index = fold_constants(_settled(index), self.builder.params)
                found = (self._of(x, over, dim, index, axis) for axis in over)
                return next((value for value in found if value is not None), None)
        return None

    def _of(self, x: Expr, over: tuple[str, ...], dim: str, index: Expr, axis: str) -> Expr | None:
        """The sum, where ``axis`` counts blocks and the places in one as the index does."""
        match dict(self.builder.mixer.sizes).get(axis), index:
            case (
                Call("mul", (Size(slots), Size(places))),
                Call("add", (Call("mul", (block, count)), Call("mod", (Index(place), width)))),
            ) if place == axis and slots not in x.axes | {*over}:
                pass
            case _:
                return None
        number = self._number(count)
        if number is None or not number == self._number(width) == self._number(Size(places)):
            return None
        turn = self._turn(slots)
        here = transform(block, lambda node: self._slot(node, axis, number, turn))
        if axis in here.axes or dim in here.axes:
            return None
        there = call("add", call("mul", Index(turn), number), call("mod", Index(dim), number))
        chosen = call("eq", here, call("floordiv", Index(dim), number))
        value = call("where", chosen, Read(x, ((axis, there),)), 0.0)
        return Reduce("sum", value, (*(d for d in over if d != axis), turn))

    def _turn(self, slots: str) -> str:
        """The axis along which the blocks of a list are gone through."""
        builder = self.builder
        if builder.context.sizes.get(slots, HELD + 1) <= HELD:
            return slots
        name = f"{slots}_turns"
        if name not in builder.lengths:
            builder.add_dim(name, Size(slots))
        return name

    def _slot(self, node: Expr, axis: str, number: int, turn: str) -> Expr | None:
        match node:
            case Call("floordiv", (Index(place), width)):
                if place == axis and self._number(width) == number:
                    return Index(turn)
        return None

    def _number(self, expr: Expr) -> int | None:
        """A count that is known when kernels are made."""
        lengths = dict(self.builder.mixer.sizes)
        if isinstance(expr, Size) and expr.dim in lengths:
            expr = lengths[expr.dim]
        try:
            return int(evaluate_host(expr, self.builder.context.sizes, self.builder.params))
        except KeyError:
            return None


def _settled(index: Expr) -> Expr:
    """An index whose reads are of tables alone."""

    def change(node: Expr) -> Expr | None:
        match node:
            case Read(x, at) if not isinstance(x, Ref) and not any(
                isinstance(part, Reduce) for part in walk(x)
            ):
                return move(x, dict(at))
        return None

    return transform(index, change)


__all__ = ["by_blocks"]
