"""Key ranges as data: which positions along an axis a block of rows visits, in closed form.

``compiler/analysis/masks`` finds them in a mask, and says there how a kernel uses them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .expression import Expr, Kind, Ref


class Trend(enum.Enum):
    """How a value moves as the position along an axis grows."""

    CONSTANT = "constant"
    RISING = "rising"  # never falls
    FALLING = "falling"  # never rises
    UNKNOWN = "unknown"

    @property
    def reversed(self) -> Trend:
        """The trend of the negative."""
        flipped = {Trend.RISING: Trend.FALLING, Trend.FALLING: Trend.RISING}
        return flipped.get(self, self)

    def joined(self, other: Trend) -> Trend:
        """The trend of a function that rises with both values (a sum, max, min)."""
        if self is Trend.CONSTANT or self is other:
            return other
        return self if other is Trend.CONSTANT else Trend.UNKNOWN


@dataclass(frozen=True, slots=True)
class Search:
    """Where ``value`` would be put into ``table``, which is sorted along ``dim``.

    With side "left" the number of entries < value, with "right" the number of entries <= value.
    Other axes of the table line up with those of the value. A bound has it as ``ref``.
    """

    name: str
    table: Ref
    dim: str
    side: str
    value: Expr

    @property
    def ref(self) -> Ref:
        """The result, as bounds name it."""
        return Ref(self.name, (self.table.axes - {self.dim}) | self.value.axes, Kind.INT)


class Row(enum.Enum):
    """Where over a block of rows a bound takes its extreme."""

    FIRST = "first"  # at i0
    LAST = "last"  # at i1
    ANY = "any"  # it does not depend on the row
    EVERY = "every"  # reduce over the rows of the block


@dataclass(frozen=True, slots=True)
class Bound:
    """``j >= value`` in ``Conjunct.lower``, ``j < value`` (exclusive) in ``Conjunct.upper``.

    ``loose`` and ``tight`` are integer expressions free of j; they are the same expression unless
    the mask compares real numbers, where they differ by what rounding may do. They may have any
    axes besides (heads, batch). ``searches`` are binary searches in sorted tables that the values
    refer to by name (``Ref(search.name)``). ``trend`` is how both move along the block axis.
    """

    loose: Expr
    tight: Expr
    trend: Trend
    searches: tuple[Search, ...] = ()

    def row(self, largest: bool) -> Row:
        """The row at which the largest (or smallest) value over a block of rows is found."""
        match self.trend:
            case Trend.CONSTANT:
                return Row.ANY
            case Trend.RISING:
                return Row.LAST if largest else Row.FIRST
            case Trend.FALLING:
                return Row.FIRST if largest else Row.LAST
            case _:
                return Row.EVERY


@dataclass(frozen=True, slots=True)
class RowCondition:
    """A truth value free of j: a row for which it is false sees nothing of the conjunct.

    ``trend`` is how it moves along the block axis (false < true).
    """

    value: Expr
    trend: Trend

    def row(self, some: bool) -> Row:
        """The row that decides whether it holds for some (or for every) row of a block."""
        return Bound(self.value, self.value, self.trend).row(largest=some)


@dataclass(frozen=True, slots=True)
class Conjunct:
    """Bounds and row conditions that hold together; ``residual`` are the terms without a bound.

    ``exact``: the mask is true wherever all bounds and conditions hold. If not, no block of this
    conjunct is ever full.
    """

    lower: tuple[Bound, ...]
    upper: tuple[Bound, ...]
    conditions: tuple[RowCondition, ...]
    residual: tuple[Expr, ...] = ()
    exact: bool = True

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """All bounds, lower ones first."""
        return self.lower + self.upper


@dataclass(frozen=True, slots=True)
class KeyRanges:
    """The union of the disjuncts' ranges along ``axis``, for blocks of rows along ``block``.

    No disjunct: nothing is ever visible. Where ``ordered``, the lower ends ascend for every block
    (at most the last disjunct has a lower bound), so that a loop over the union can take each
    range from the largest end of those before. ``rest``: where the bounds and conditions of the
    only disjunct hold, these terms are what is left of the mask.
    """

    axis: str
    block: str
    disjuncts: tuple[Conjunct, ...]
    rest: tuple[Expr, ...] = ()

    @property
    def ordered(self) -> bool:
        """Whether the lower ends ascend in this order, whatever the block."""
        return not any(conjunct.lower for conjunct in self.disjuncts[:-1])
