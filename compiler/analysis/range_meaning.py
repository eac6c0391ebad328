"""What key ranges mean, executed and in words."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...ir.expression import Call, Expr, Index, Kind, Literal, Ref, Scalar, call, transform
from ...ir.text import write_expression
from .isolate import LIMIT
from .linear import plus
from .mask_ranges import Bound, Conjunct, KeyRanges, Row, RowCondition
from .pointwise import Number, Values, table_entries, value_at


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
    kernel does. An empty range has hi == lo.
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
        full_lo = max([lo, *(self._extreme(b, b.tight, True) for b in disjunct.lower)])
        full_hi = min([hi, *(self._extreme(b, b.tight, False) for b in disjunct.upper)])
        if not all(self._holds(c, some=True) for c in disjunct.conditions):
            hi = lo
        if not disjunct.exact or not all(self._holds(c, some=False) for c in disjunct.conditions):
            full_hi = full_lo
        lo, full_lo = min(lo, size), min(full_lo, size)
        return BlockRange(lo, max(lo, hi), full_lo, max(full_lo, min(full_hi, max(lo, hi))))

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


def describe(ranges: KeyRanges) -> list[str]:
    """The ranges for the rows i0 ... i1 of a block in closed form, one or two lines per disjunct.

    ``j in [max(0, i0 - window + 1), i1 + 1), full in [i1 - window + 1, i0 + 1)``
    """
    if not ranges.disjuncts:
        return [f"{ranges.axis.lower()} in no range: nothing is visible"]
    lines: list[str] = []
    for disjunct in ranges.disjuncts:
        lines.extend(_lines(ranges, disjunct))
    return lines


def _lines(ranges: KeyRanges, disjunct: Conjunct) -> list[str]:
    words = _Words(ranges.axis, ranges.block)
    lo, hi = words.interval(disjunct, full=False)
    line = f"{ranges.axis.lower()} in [{lo}, {hi})"
    if disjunct.exact:
        full_lo, full_hi = words.interval(disjunct, full=True)
        everything = (full_lo, full_hi) == (lo, hi)
        line += ", all of it full" if everything else f", full in [{full_lo}, {full_hi})"
    lines = [line]
    for condition in disjunct.conditions:
        some, every = (words.condition(condition, some) for some in (True, False))
        lines.append(f"  if {some}; full if {every}" if some != every else f"  if {some}")
    lines.extend(f"  partial: {write_expression(term)}" for term in disjunct.residual)
    if not disjunct.exact and not disjunct.residual:
        lines.append("  partial: several ranges merged into one")
    return lines


@dataclass(frozen=True, slots=True)
class _Words:
    axis: str
    block: str

    def interval(self, disjunct: Conjunct, full: bool) -> tuple[str, str]:
        lows = [self.extreme(b, b.tight if full else b.loose, full) for b in disjunct.lower]
        highs = [self.extreme(b, b.tight if full else b.loose, not full) for b in disjunct.upper]
        return self._of("max", ["0", *lows]), self._of("min", highs or [self.axis])

    def _of(self, fn: str, parts: list[str]) -> str:
        return parts[0] if len(parts) == 1 else f"{fn}({', '.join(parts)})"

    def extreme(self, bound: Bound, value: Expr, largest: bool) -> str:
        searched = {s.ref.name: s for s in bound.searches}

        def opened(text: str) -> str:
            for name, search in searched.items():
                what = write_expression(self._at(search.value, row))
                text = text.replace(name, f"{search.side}({search.table.name}, {what})")
            return text

        row = bound.row(largest)
        return self._worded(row, opened(write_expression(self._at(value, row))), largest, "min max")

    def condition(self, condition: RowCondition, some: bool) -> str:
        row = condition.row(some)
        text = write_expression(self._at(condition.value, row))
        return self._worded(row, text, some, "all any")

    def _worded(self, row: Row, text: str, largest: bool, names: str) -> str:
        if row is not Row.EVERY:
            return text
        low = self.block.lower()
        return f"{names.split()[largest]} of {text} over {low} in {low}0 ... {low}1"

    def _at(self, value: Expr, row: Row) -> Expr:
        """The value at a row of the block, and without the cut to the largest positions."""
        low = self.block.lower()
        name = {Row.FIRST: f"{low}0", Row.LAST: f"{low}1"}.get(row)

        def change(node: Expr) -> Expr | None:
            match node:
                case Index(dim) if dim == self.block and name is not None:
                    return Scalar(name, Kind.INT)
                case Call("min", (Call("max", (inner, Literal(least))), Literal(most))) if (
                    least,
                    most,
                ) == (-float(LIMIT), float(LIMIT)):
                    return inner
                case Literal(value) if value in (LIMIT, -LIMIT):
                    return Literal(value / LIMIT * float("inf"))
                case _:
                    return None

        return transform(value, change)


__all__ = ["BlockRange", "describe", "evaluate_ranges"]
