"""The least that is kept of each row by its bits, a few at a pass, however many are kept.

    the largest t with: as many numbers as are kept are >= t

A float32 and the integer of its bits, with the size of a negative one taken from 0, are in the same
order, and so is the search for t in that of integers: a pass counts, for each digit that the bits
sought for may make, the numbers that are no smaller.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf

from ...ir.node import AS_FLOAT
from ...ir.targets import AnyTarget, CpuTarget
from ...ir.tile import DType, Value
from .row_passes import RowPasses, kept_number

_BITS = 32
_LOWEST = -(1 << 31)
_INFINITE = 0x7F800000  # the bits of inf, the largest number
_DIGITS = (2, 4)  # bits of a digit: the first digit's step fits 32 bits with a sign
# To read a number again, in operations on one that is at hand: a core works on as many as its
# second cache gives, a multiprocessor on eight for each that comes from the cache of all.
_READ_NEAR, _READ_FAR = 1, 8
_OF_TURN = 6  # two comparisons, what is smaller, its largest, and two counts


def turns_are_cheaper(kept: int | float | bool | None, target: AnyTarget) -> bool:
    """Whether to go from one of the largest to the next takes less than to go by bits."""
    read = _read(target)
    return kept is not None and kept * (_OF_TURN + read) <= _cost(_digit(target), read)


class Measure(ABC):
    """What the numbers of a row add up to, from the largest on, until it is enough."""

    dtype: DType

    def __init__(self, row: RowPasses) -> None:
        self.row = row

    @abstractmethod
    def parts(self, x: Value, those: Value) -> Value:
        """What each of ``those`` numbers adds."""

    @property
    @abstractmethod
    def wanted(self) -> Value:
        """What is enough."""

    def least(self) -> tuple[Value, Value]:
        """The largest number with which it is enough, and what larger ones add up to.

        It is -inf where all are too few, inf where none is wanted.
        """
        row, builder, dtype = self.row, self.row.builder, self.dtype
        digit = _digit(row.evaluator.context.target)
        base, number = 1 << digit, 0.0 if dtype.is_float else 0
        nothing = builder.constant(number, dtype, row.rows)
        start = [
            ("bits", row.whole(_LOWEST, row.rows)),
            ("step", row.whole(1 << (_BITS - digit))),
            ("larger", nothing),
        ]
        with builder.loop("digit", row.whole(0), row.whole(_BITS // digit), 1, start) as loop:
            bits, step, larger = loop.carried
            tried = [bits]
            for _ in range(1, base):  # one after another: the steps alone may add up to 2 ** 31
                tried.append(row.integer("add", tried[-1], step))
            bounds = [_number(row, one) for one in tried[1:]]
            starts = [(f"sum_{n}", "sum", nothing) for n in range(1, base)]
            sums = row.gather(
                starts, lambda x: [self.parts(x, row.those("ge", x, bound)) for bound in bounds]
            )
            for bound, found in zip(bounds, sums, strict=True):
                # Of too few the last to be tried is the next above; below -inf there is nothing.
                few = row.compared("lt", found, self.wanted)
                few = row.both(few, row.compared("gt", bound, row.number(-inf)))
                more = row.evaluator.where(few, found, nothing)
                larger = builder.elementwise("max", larger, more, dtype=dtype, hint="larger")
                enough = builder.cast(row.compared("ge", found, self.wanted), DType.INT32)
                bits = row.integer("add", bits, row.integer("mul", enough, step))
            loop.yields = (bits, row.integer("floordiv", step, row.whole(base)), larger)
        return _number(row, loop.results[0]), loop.results[2]


class Count(Measure):
    """How many there are."""

    dtype = DType.INT32

    def __init__(self, row: RowPasses) -> None:
        super().__init__(row)
        self.kept = kept_number(row)

    def parts(self, x: Value, those: Value) -> Value:
        """One for each."""
        return self.row.flag(those)

    @property
    def wanted(self) -> Value:
        """How many are kept."""
        return self.kept

    def ends(self) -> tuple[Value, Value]:
        """The least that is kept, and for how many of its equals there is room."""
        least, larger = self.least()
        return least, self.row.integer("sub", self.kept, larger, hint="room")


def _number(row: RowPasses, bits: Value) -> Value:
    """The number that has these bits, in the order of integers; an infinite one beyond all."""
    builder = row.builder
    bits = row.integer("max", bits, row.whole(-_INFINITE))
    bits = row.integer("min", bits, row.whole(_INFINITE))
    negative = row.compared("lt", bits, row.whole(0))
    # Of one that is not negative 0 is taken: what is not chosen has to have 32 bits, too.
    turned = row.integer("sub", row.whole(_LOWEST), row.integer("min", bits, row.whole(0)))
    bits = row.evaluator.where(negative, turned, bits)
    return builder.elementwise(AS_FLOAT, bits, dtype=DType.FLOAT32, hint="bound")


def _read(target: AnyTarget) -> int:
    return _READ_NEAR if isinstance(target, CpuTarget) else _READ_FAR


def _digit(target: AnyTarget) -> int:
    read = _read(target)
    return min(_DIGITS, key=lambda digit: _cost(digit, read))


def _cost(digit: int, read: int) -> int:
    """What the passes do for each number: a comparison and a count for each digit but 0."""
    return _BITS // digit * (read + 1 + 2 * ((1 << digit) - 1))


__all__ = ["Count", "Measure", "turns_are_cheaper"]
