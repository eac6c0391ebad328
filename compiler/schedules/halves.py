"""Decays by entry inside a chunk, as products of matrices: halves of halves.

A decay of its own for each entry of the key leaves no matrix of decays between rows. But a row t
in the later half of some stretch of rows, and a row s in the earlier one, meet at the middle m:
P(t, s) = P(t, m) P(m, s), so that

    sum over d of x_t y_s P(t, s) = (x_t P(t, m)) (y_s P(m, s))

is a product of matrices. Stretches of 2, 4, 8 ... rows have each pair of rows in halves of their
own exactly once. Both factors are decays that really happen: as logarithms, sums of the rows
between, which are as far below 0 as the gates say. Nothing is divided by a decay, and there are no
differences of long sums (what is normalised by one row for all overflows: Yang et al. 2024,
arXiv 2312.06635, section 4.3).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.expression import Expr, Ref
from ...ir.promises import DividingBlocks
from ...ir.tile import DType, Value
from ..tiles.contraction import factors_of, is_zero_outside
from ..tiles.sums import accumulate
from .decay import TO_ROW, Pairs, Request, pair_name
from .log_decay import Logarithms


class Halves(Logarithms):
    """A factor for each entry of the axis, given by its logarithm.

    ``halves`` are the lengths that halves have, up to that of the chunk.
    """

    def __init__(self, pairs: Pairs, axis: str, logarithm: Expr) -> None:
        super().__init__(pairs, axis, logarithm)
        times = (self.builder.tiles[pairs.rows].block - 1).bit_length()
        self.builder.promises.add(DividingBlocks(pairs.rows, 1 << times))
        self.halves = [1 << n for n in range(times)]
        self.exact = self.evaluator.evaluate(logarithm).dtype.is_narrow

    # ------------------------------------------------------------- from and to the chunk's ends

    def rows(self, after: bool) -> Ref | None:
        kept = self._from_start()
        if after:
            kept = self._mul(kept, self._own(), TO_ROW[True])
        return self.evaluator.named(kept)

    def seen(self, query: Expr, after: bool) -> list[Expr]:
        seeing = self._seeing(query, after)
        return [self.evaluator.named(self._mul(seeing, self._from_start()))]

    def left(self, key: Expr) -> list[Expr]:
        kept = self._exp(self._summed(self._below()), "decay_to_end")
        left = self.evaluator.named(self._as_columns(self._mul(self._tile(key), kept)))
        if all(is_zero_outside(self.evaluator, factor) for factor in factors_of(key)):
            self.evaluator.zero_outside.add(left.name)
        return [left]

    # -------------------------------------------------------------------------- pairs of rows

    def scores(self, requests: Sequence[Request]) -> list[Value]:
        """All are filled in half by half: what is left of rows is made once for all."""
        self.total()  # before others take its registers
        made = [self._diagonal(r.left, r.right, r.after) for r in requests]
        for half in self.halves:
            for n, (left, right, after, _, _) in enumerate(requests):
                name = pair_name(left, right, self.axis)
                seeing = self._to_middle(self._seeing(left, after), half)
                seen = self._as_columns(self._to_middle(self._tile(right), half))
                products = self.builder.dot(self._factor(seeing), seen, self.axis, hint=name)
                meet = self._meet(half)
                made[n] = self.evaluator.where(meet, products, made[n], f"A_{name}")
        return made

    def spread(self, weights: Value, key: Expr, after: bool) -> Value:
        columns, zero = self.pairs.columns, self.builder.constant(0.0, DType.FLOAT32)
        terms: list[Value] = []
        for half in self.halves:
            seen = self._as_columns(self._to_middle(self._tile(key), half))
            meet = self.evaluator.where(self._meet(half), weights, zero)
            value = self.builder.dot(self._factor(meet), seen, columns, hint="spread")
            terms.append(self._to_middle(value, half))
        total = accumulate(self.evaluator, terms, "spread")
        if not after:
            return total
        own = self.evaluator.where(self._same(), weights, zero)
        own = self.builder.reduce("sum", own, columns, "weight")
        total = self._mul(total, self._own(), "spread")
        return accumulate(self.evaluator, [total, self._mul(own, self._tile(key))], "spread")

    def _diagonal(self, left: Expr, right: Expr, after: bool) -> Value:
        """Pairs of a row with itself, which nothing decays."""
        pairs = frozenset({self.pairs.rows, self.pairs.columns})
        if not after:
            return self.builder.constant(0.0, DType.FLOAT32, pairs)
        name = pair_name(left, right, self.axis)
        seen = self._as_columns(self._tile(right))
        products = self.builder.dot(self._factor(self._tile(left)), seen, self.axis, hint=name)
        zero = self.builder.constant(0.0, DType.FLOAT32)
        return self.evaluator.where(self._same(), products, zero, f"A_{name}")

    def _seeing(self, left: Expr, after: bool) -> Value:
        """What a row reads with, its own decay on it where that counts."""
        value = self._tile(left)
        return self._mul(value, self._own()) if after else value

    def _to_middle(self, value: Value, half: int) -> Value:
        """``value`` with what is left of it between its row and the middle."""
        if half == 1:
            return value
        kept = self._exp(self._summed(self._between_row_and_middle(half)), f"decay_{half}")
        return self._mul(value, kept)

    # --------------------------------------------------------------------------------- sums

    def _from_start(self) -> Value:
        """What is left of the chunk's start before each row."""
        return self._exp(self._summed(self._above()), TO_ROW[False])

    def _own(self) -> Value:
        """Each row's own factor."""
        return self._exp(self._logs(), "decay")

    def _summed(self, counts: Value) -> Value:
        """The logarithms summed over the columns that count for each row, as a product.

        16 bits hold a logarithm that was loaded as such; others are the sum of two such numbers,
        which is as exact as what becomes of them.
        """
        pairs, narrow = self.pairs, self.evaluator.context.dtype
        logs, ones = self._tile_of(self._logs()), self.builder.cast(counts, narrow)
        parts = [self.builder.cast(logs, narrow, "log_decay")]
        if not self.exact:
            rest = self._sub(logs, self.builder.cast(parts[0], DType.FLOAT32))
            parts.append(self.builder.cast(rest, narrow, "log_decay_rest"))
        total: Value | None = None
        for part in parts:
            at_column = self.builder.rename(part, pairs.rows, pairs.columns)
            total = self.builder.dot(ones, at_column, pairs.columns, total, "log_decay_summed")
        assert total is not None
        return total

    def _above(self) -> Value:
        return self.pairs.compare("lt", self.pairs.column_number, self.pairs.row_number)

    def _below(self) -> Value:
        return self.pairs.compare("gt", self.pairs.column_number, self.pairs.row_number)

    def _between_row_and_middle(self, half: int) -> Value:
        """Which columns lie between a row of an earlier half and its end, itself left out, or
        between the start of a later half and a row of it."""
        pairs, row = self.pairs, self.pairs.row_number
        later, start = self._later(half), self._scaled(self._number(row, half), half)
        first = self.evaluator.where(later, start, self._plus(row, 1))
        end = self.evaluator.where(later, row, self._plus(start, half))
        inside = self.evaluator.both(
            pairs.compare("ge", pairs.column_number, first),
            pairs.compare("lt", pairs.column_number, end),
        )
        assert inside is not None
        return inside

    # ---------------------------------------------------------------------------------- places

    def _meet(self, half: int) -> Value:
        """Which pairs meet in the middle of two halves: a row of the later, a column of the
        earlier."""
        builder, pairs = self.builder, self.pairs
        none = builder.constant(-1, DType.INT32)
        later = self.evaluator.both(self._later(half), builder.bound(pairs.rows))
        assert later is not None
        sees = self.evaluator.where(later, self._number(pairs.row_number, half), none)
        return pairs.compare("eq", sees, self._plus(self._number(pairs.column_number, half), 1))

    def _same(self) -> Value:
        """Which pairs are a row with itself."""
        pairs = self.pairs
        same = pairs.compare("eq", pairs.row_number, pairs.column_number)
        both = self.evaluator.both(same, self.builder.bound(pairs.columns))
        assert both is not None
        return both

    def _later(self, half: int) -> Value:
        """Which rows lie in a later half."""
        builder, number = self.builder, self._number(self.pairs.row_number, half)
        two, one = builder.constant(2, DType.INT32), builder.constant(1, DType.INT32)
        odd = builder.elementwise("mod", number, two, dtype=DType.INT32)
        return self.pairs.compare("eq", odd, one)

    def _number(self, row: Value, half: int) -> Value:
        """Which half a row is in."""
        if half == 1:
            return row
        length = self.builder.constant(half, DType.INT32)
        return self.builder.elementwise("floordiv", row, length, dtype=DType.INT32)

    def _plus(self, value: Value, more: int) -> Value:
        number = self.builder.constant(more, DType.INT32)
        return self.builder.elementwise("add", value, number, dtype=DType.INT32)

    def _scaled(self, value: Value, by: int) -> Value:
        number = self.builder.constant(by, DType.INT32)
        return self.builder.elementwise("mul", value, number, dtype=DType.INT32)

    # ----------------------------------------------------------------------------------- tiles

    def _tile(self, expr: Expr) -> Value:
        """An expression for each row and entry."""
        return self._tile_of(self.evaluator.real(expr))

    def _tile_of(self, value: Value) -> Value:
        return self.evaluator.spread(value, frozenset({self.pairs.rows, self.axis}))

    def _factor(self, value: Value) -> Value:
        """``value`` as products take it."""
        value = self.evaluator.masked(value, self.axis, 0.0)
        return self.builder.cast(value, self.evaluator.context.dtype)

    def _as_columns(self, value: Value) -> Value:
        """The rows' ``value`` as products take it, for the same rows as columns."""
        return self.builder.rename(self._factor(value), self.pairs.rows, self.pairs.columns)

    def _mul(self, a: Value, b: Value, hint: str = "") -> Value:
        return self.builder.elementwise("mul", a, b, dtype=DType.FLOAT32, hint=hint)
