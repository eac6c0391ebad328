"""What key ranges mean, executed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from ....ir.expression import Expr, Literal, Ref
from ....ir.key_ranges import Bound, Conjunct, KeyRanges, Row, RowCondition
from ....ir.rewriting import transform
from ..pointwise import Number, Values, table_entries, value_at


@dataclass(frozen=True, slots=True)
class BlockRange:
    """``[lo, hi)`` matters to some row of the block, ``[full_lo, full_hi)`` whole to every row."""

    lo: int
    hi: int
    full_lo: int
    full_hi: int


def evaluate_ranges(
    ranges: KeyRanges,
    first: int,
    last: int,
    values: Values,
    at: Mapping[str, int] | None = None,
) -> tuple[BlockRange, ...]:
    """One range per disjunct for the rows ``first`` ... ``last`` (inclusive, within the sequence).

    ``at`` has the positions of all other axes. Monotone bounds are taken at one row only, as a
    kernel does. 0 <= lo <= full_lo <= full_hi <= hi, and an empty range is (0, 0, 0, 0).
    """
    block = _Block(ranges, first, last, values, {} if at is None else at)
    return tuple(block.range_of(disjunct) for disjunct in ranges.disjuncts)


@dataclass(frozen=True, slots=True)
class _Block:
    ranges: KeyRanges
    first: int
    last: int
    values: Values
    at: Mapping[str, int]

    def range_of(self, disjunct: Conjunct) -> BlockRange:
        size = self.values.sizes[self.ranges.axis]
        lo = max([0, *(self._extreme(b, b.loose, False) for b in disjunct.lower)])
        hi = min([size, *(self._extreme(b, b.loose, True) for b in disjunct.upper)])
        if lo >= hi or not all(self._holds(c, some=True) for c in disjunct.conditions):
            return BlockRange(0, 0, 0, 0)
        full_lo = max([lo, *(self._extreme(b, b.tight, True) for b in disjunct.lower)])
        full_hi = min([hi, *(self._extreme(b, b.tight, False) for b in disjunct.upper)])
        full = disjunct.exact and all(self._holds(c, some=False) for c in disjunct.conditions)
        full_lo = min(full_lo, hi)
        return BlockRange(lo, hi, full_lo, max(full_lo, full_hi) if full else full_lo)

    def _rows(self, row: Row) -> range:
        match row:
            case Row.FIRST | Row.ANY:
                return range(self.first, self.first + 1)
            case Row.LAST:
                return range(self.last, self.last + 1)
            case Row.EVERY:
                return range(self.first, self.last + 1)

    def _extreme(self, bound: Bound, value: Expr, largest: bool) -> int:
        found = [self._value(bound, value, row) for row in self._rows(bound.row(largest))]
        return int(max(found) if largest else min(found))

    def _holds(self, condition: RowCondition, some: bool) -> bool:
        rows = self._rows(condition.row(some))
        found = [value_at(condition.value, self._place(row), self.values) for row in rows]
        return any(found) if some else all(found)

    def _place(self, row: int) -> dict[str, int]:
        return {**self.at, self.ranges.block: row}

    def _value(self, bound: Bound, value: Expr, row: int) -> Number:
        """A bound at one row, after its searches."""
        place = self._place(row)
        found: dict[str, Number] = {}
        for search in bound.searches:
            entries = table_entries(search.table, search.dim, place, self.values)
            bisect = bisect_left if search.side == "left" else bisect_right
            found[search.name] = bisect(entries, value_at(search.value, place, self.values))
        named = _replaced(value, {name: Literal(number) for name, number in found.items()})
        return value_at(named, place, self.values)


def _replaced(expr: Expr, names: Mapping[str, Expr]) -> Expr:
    return transform(expr, lambda node: names.get(node.name) if isinstance(node, Ref) else None)


__all__ = ["BlockRange", "evaluate_ranges"]
