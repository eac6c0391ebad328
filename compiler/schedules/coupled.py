"""Matrix states that mix by scalars, in chunks: a momentum and what it moves.

The decays from row to row are small matrices A_t of scalars: P(t, s) is the product
A_t ... A_(s+1), and what is written to state j reaches state i by the entry P_ij.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ir.expression import Expr
from ...ir.recurrence_forms import Affine, Coupled
from ...ir.tile import DType, Value
from ..tiles.contraction import factors_of
from ..tiles.sums import accumulate
from .decay import Pairs, Request, Transfer
from .scan import Entries, product


class CoupledDecay(Transfer):
    """A matrix of scalars per row, between the states of ``form``."""

    def __init__(self, pairs: Pairs, form: Coupled) -> None:
        super().__init__(pairs, form.key_axis)
        self.form = form
        self.made: dict[tuple[str, bool], Entries] = {}

    @property
    def scores_first(self) -> bool:
        return False

    def seen_by(self, query: Expr, state: int, after: bool) -> list[tuple[int, list[Expr]]]:
        return [
            (j, [self.evaluator.named(kept), *factors_of(query)])
            for (i, j), kept in self._rows(after).items()
            if i == state
        ]

    def left_of(self, key: Expr, state: int, targets: frozenset[int]) -> list[Expr] | None:
        kept = self._reaching(self._to_end(), state, targets)
        if kept is None:
            return None
        return [self.evaluator.named(kept), *factors_of(self.pairs.at_column(key))]

    def totals(self, state: int) -> list[tuple[int, Value | None]]:
        rows = self._rows(True)
        return [(j, self.pairs.in_last_row(kept)) for (i, j), kept in rows.items() if i == state]

    def scores(self, requests: Sequence[Request]) -> list[Value]:
        made = []
        for left, right, after, state, targets in requests:
            kept = self._reaching(self._between(after), state, targets)
            if kept is None:
                kept = self.builder.constant(0.0, DType.FLOAT32)
            made.append(self._masked(self._times(self._score(left, right), kept), after))
        return made

    def _reaching(self, entries: Entries, state: int, targets: frozenset[int]) -> Value | None:
        """What reaches ``state`` of what was written to ``targets``; None: nothing."""
        reached = [entries[state, j] for j in sorted(targets) if (state, j) in entries]
        return accumulate(self.evaluator, reached) if reached else None

    # ------------------------------------------------------------------------------ decays

    def _rows(self, after: bool) -> Entries:
        """From the chunk's start to each row, the row's own included with ``after``."""
        rows = self.pairs.rows
        if after:
            return self._scanned("rows", after, self._here(None), rows)
        later = self.pairs.compare("gt", self.pairs.row_number, self.pairs.start)
        return self._scanned("rows", after, self._moved(rows, -1, later), rows)

    def _between(self, after: bool) -> Entries:
        """From each column to each row."""
        pairs = self.pairs
        if after:
            later = pairs.compare("gt", pairs.row_number, pairs.column_number)
            return self._scanned("between", after, self._here(later), pairs.rows)
        later = pairs.compare("gt", pairs.row_number, pairs.column_number, more=1)
        return self._scanned("between", after, self._moved(pairs.rows, -1, later), pairs.rows)

    def _to_end(self) -> Entries:
        """From each column to the chunk's end."""
        pairs = self.pairs
        inside = pairs.compare("lt", pairs.column_number, pairs.last_row())
        after = self._moved(pairs.columns, 1, inside)
        return self._scanned("end", True, after, pairs.columns, reverse=True)

    @property
    def _affine(self) -> Affine:
        none = (None,) * len(self.form.states)
        return Affine(self.form.states, "add", "mul", self.form.decay, none)

    def _here(self, where: Value | None) -> Entries:
        """The entries of each row's matrix; the identity where not ``where``, and past the end."""
        exists = self.evaluator.builder.bound(self.pairs.rows)
        return self._entries(lambda e: e, self.evaluator.both(where, exists))

    def _moved(self, dim: str, by: int, where: Value) -> Entries:
        """The entries of the matrix ``by`` rows later; the identity where not ``where``."""
        return self._entries(lambda e: self.pairs.neighbour(e, dim, by), where)

    def _entries(self, place: Callable[[Expr], Expr], where: Value | None) -> Entries:
        evaluator, builder = self.evaluator, self.evaluator.builder
        made: Entries = {}
        for i, j in self._affine.places:
            neutral = builder.constant(float(i == j), DType.FLOAT32)
            value = self.form.decay[i][j]
            inside = builder.constant(0.0, DType.FLOAT32)
            if value is not None:
                inside = evaluator.real(place(value))
            made[i, j] = neutral
            if where is not None and inside != neutral:
                made[i, j] = evaluator.where(where, inside, neutral)
        return made

    def _scanned(
        self, name: str, after: bool, entries: Entries, over: str, reverse: bool = False
    ) -> Entries:
        """The products of the rows' matrices, the later on the left."""
        known = self.made.get((name, after))
        if known is not None:
            return known
        builder, places = self.evaluator.builder, list(entries)
        axes = frozenset({over}).union(*(v.axes for v in entries.values()))
        xs = [self.evaluator.spread(value, axes) for value in entries.values()]

        def together(left: tuple[Value, ...], right: tuple[Value, ...]) -> list[Value]:
            first, second = (dict(zip(places, side, strict=True)) for side in (left, right))
            if reverse:  # what is nearer to the end stands on the left of a scan from there
                first, second = second, first
            made = product(self.evaluator, self._affine, second, first)
            return [made[place] for place in places]

        hints = [f"decay{i}{j}" for i, j in places]
        made = builder.combine(xs, over, together, reverse=reverse, hints=hints)
        self.made[name, after] = dict(zip(places, made, strict=True))
        return self.made[name, after]
