"""Decays inside a chunk by their logarithms: differences of running sums, then exponentials.

One running sum of a row's numbers does what products do pair by pair: P(t, s) = exp(G_t - G_s). A
difference for what row t sees is as large as the decay really is, and what comes of the others
counts for nothing. It is off by what the sums have lost, |G| * 2**-24: for 16-bit numbers that is
nothing, for float32 strong gates would show, and there ``Factors`` multiplies.
"""

from __future__ import annotations

import math

from ...ir.expression import Expr, Literal, Ref, call
from ...ir.tile import DType, Value
from .decay import BETWEEN, TO_ROW, Factors, Pairs

# exp of less is 0 in float32; cut off, sums stay short and infinities do not meet.
_NOTHING_LEFT = -104.0


class Logarithms(Factors):
    """A factor per row, the same for the whole state, given by its logarithm."""

    def __init__(self, pairs: Pairs, axis: str, logarithm: Expr) -> None:
        least = Literal(_NOTHING_LEFT)
        cut = call("where", call("lt", logarithm, least), least, logarithm)
        super().__init__(pairs, axis, cut)

    def rows(self, after: bool) -> Ref | None:
        return self.evaluator.named(self._exp(self._up_to_row(after), TO_ROW[after]))

    def to_end(self) -> Ref | None:
        left = self._sub(self._of_chunk(), self._up_to_column())
        left = self.evaluator.masked(left, self.pairs.columns, -math.inf, "log_decay_to_end")
        made = self.evaluator.named(self._exp(left, "decay_to_end"))
        self.evaluator.zero_outside.add(made.name)
        return made

    def total(self) -> Value | None:
        return self._exp(self._of_chunk(), "decay_of_chunk")

    def _decayed(self, pairs: Value, after: bool) -> Value:
        between = self._sub(self._up_to_row(after), self._up_to_column())
        # Masked after all, once: what a row does not see may be infinite, as may be its decay.
        return self._masked(self._times(pairs, self._exp(between, BETWEEN[after])), after)

    def _logs(self) -> Value:
        """Each row's logarithm, 0 past the last row."""
        rows = self.pairs.rows
        value = self.evaluator.spread(self.evaluator.real(self.value), frozenset({rows}))
        return self.evaluator.masked(value, rows, 0.0)

    def _up_to_row(self, after: bool) -> Value:
        """The sum from the chunk's start to each row, the row's own included with ``after``."""
        total = self.builder.scan(self._logs(), self.pairs.rows, hint="log_decay")
        return total if after else self._sub(total, self._logs(), "log_decay_before_row")

    def _up_to_column(self) -> Value:
        """The same sum, the columns' own included."""
        sums = self.evaluator.named(self._up_to_row(after=True))
        return self.evaluator.real(self.pairs.at_column(sums))

    def _of_chunk(self) -> Value:
        return self.builder.reduce("sum", self._logs(), self.pairs.rows, "log_decay_of_chunk")

    def _sub(self, a: Value, b: Value, hint: str = "") -> Value:
        return self.builder.elementwise("sub", a, b, dtype=DType.FLOAT32, hint=hint)

    def _exp(self, value: Value, hint: str) -> Value:
        return self.builder.elementwise("exp", value, dtype=DType.FLOAT32, hint=hint)
