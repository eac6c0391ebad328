"""Key ranges in words, for ``mixc show``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ....ir.expression import Call, Expr, Index, Kind, Literal, Scalar
from ....ir.key_ranges import Bound, Conjunct, KeyRanges, Row, RowCondition
from ....ir.rewriting import transform
from ....ir.text import write_expression
from ..facts import Facts, is_nonnegative
from .isolate import LIMIT


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


def _nonnegative(bound: Bound) -> bool:
    """Whether the bound is plainly not below 0: an index, or the result of a search."""
    return is_nonnegative(bound.tight, Facts()) or bound.tight in {s.ref for s in bound.searches}


@dataclass(frozen=True, slots=True)
class _Words:
    axis: str
    block: str

    def interval(self, disjunct: Conjunct, full: bool) -> tuple[str, str]:
        lows = [self.extreme(b, b.tight if full else b.loose, full) for b in disjunct.lower]
        highs = [self.extreme(b, b.tight if full else b.loose, not full) for b in disjunct.upper]
        least = ["0"] if not any(_nonnegative(b) for b in disjunct.lower) else []
        return self._of("max", [*least, *lows]), self._of("min", highs or [self.axis])

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
                    math.isinf(least) and math.isinf(most)
                ):
                    return inner
                case Literal(value) if value in (LIMIT, -LIMIT):
                    return Literal(math.copysign(math.inf, value))
                case _:
                    return None

        return transform(value, change)


__all__ = ["describe"]
