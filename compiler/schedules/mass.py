"""The fewest of a row, the largest first, whose softmax adds up to as much as is asked for."""

from __future__ import annotations

from math import inf

from ...ir.expression import Expr
from ...ir.tile import DType, Value
from .largest_by_bits import Measure
from .row_passes import RowPasses


class Mass(Measure):
    """The sum of exp(x - largest): the softmax, but for its denominator.

    Where the largest is infinite, that is no number, and none is kept.
    """

    dtype = DType.FLOAT32

    def __init__(self, row: RowPasses, bound: Expr) -> None:
        super().__init__(row)
        lowest, where = row.number(-inf), row.evaluator.where
        starts = [("largest", "max", lowest)]
        (self.largest,) = row.gather(
            starts, lambda x: [where(row.those("ge", x, lowest), x, lowest)]
        )
        starts = [("total", "sum", row.number(0.0))]
        (total,) = row.gather(starts, lambda x: [self.parts(x, row.those("ge", x, lowest))])
        share = row.evaluator.spread(row.evaluator.real(bound, "mass"), row.rows)
        self.share = self._real("mul", share, total, hint="wanted")
        size = self._real("abs", self.largest)
        self.is_number = row.compared("lt", size, row.number(inf))

    def parts(self, x: Value, those: Value) -> Value:
        """The weight of each."""
        zero = self.row.builder.constant(0.0, DType.FLOAT32)
        return self.row.evaluator.where(those, self.weight(x), zero)

    def weight(self, x: Value) -> Value:
        """exp(x - largest)."""
        return self._real("exp", self._real("sub", x, self.largest), hint="weight")

    @property
    def wanted(self) -> Value:
        """The part of the sum that is to be reached."""
        return self.share

    def ends(self) -> tuple[Value, Value]:
        """The least that is kept, and for how many of its equals there is room.

        For the n-th of them, counted from 0, where what comes before adds up to too little:
        larger + n * weight < wanted.
        """
        row, where = self.row, self.row.evaluator.where
        least, larger = self.least()
        left = self._real("sub", self.share, larger)
        often = self._real("div", left, self.weight(least))
        most = row.builder.cast(row.evaluator.size(row.task.over), DType.FLOAT32)
        most = row.evaluator.spread(most, row.rows)
        often = where(row.compared("lt", often, most), often, most)
        often = self._real("max", often, row.number(0.0))
        often = row.builder.cast(self._real("ceil", often), DType.INT32)
        some = row.both(row.compared("gt", left, row.number(0.0)), self.is_number)
        room = where(some, often, row.whole(0, row.rows), "room")
        return where(self.is_number, least, row.number(inf)), room

    def _real(self, fn: str, *args: Value, hint: str = "") -> Value:
        return self.row.builder.elementwise(fn, *args, dtype=DType.FLOAT32, hint=hint)


__all__ = ["Mass"]
