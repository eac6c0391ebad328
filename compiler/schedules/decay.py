"""Decays inside a chunk, as products: from the chunk's start, to its end, and between two rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...ir.expression import Expr, Index, Ref, call
from ...ir.rewriting import walk
from ...ir.tile import DType, Value
from ..tiles.contraction import contract, factors_of
from ..tiles.evaluator import Evaluator
from ..tiles.grid import from_end
from ..tiles.key_blocks import integer
from ..tiles.moving import move
from ..tiles.naming import joined

# What is left in a row, without and with its own decay: of the chunk's start, of another's write.
TO_ROW = {False: "decay_before_row", True: "decay_to_row"}
BETWEEN = {False: "decay_between_before", True: "decay_between"}
# (column, decay from it to each row, what is carried) --> what is carried on
ColumnBody = Callable[[Value, Mapping[bool, Value], tuple[Value, ...]], list[Value]]


@dataclass(frozen=True)
class Pairs:
    """The rows of a chunk on the tile: along ``rows`` and again along ``columns``.

    ``row`` is a dim of which one row at a time is placed. ``row_number`` and ``column_number``
    count in the order of the recurrence, which is not that of memory with ``reverse``.
    """

    evaluator: Evaluator
    rows: str
    columns: str
    row: str
    row_number: Value
    column_number: Value
    start: Value
    reverse: bool

    def last_row(self) -> Value:
        """The number of the chunk's last row that exists."""
        evaluator, builder = self.evaluator, self.evaluator.builder
        end = integer(evaluator, "add", self.start, builder.block(self.rows))
        end = integer(evaluator, "min", end, evaluator.size(self.rows), hint="end")
        one = builder.constant(1, DType.INT32)
        return integer(evaluator, "sub", end, one, hint="last_row")

    def place(self) -> Value:
        """Where each row stands in the chunk."""
        return self.evaluator.builder.range(self.rows, None, f"{self.rows.lower()}_place")

    def in_last_row(self, value: Value) -> Value:
        """``value`` in the chunk's last row that exists."""
        builder = self.evaluator.builder
        here = self.compare("eq", self.row_number, self.last_row())
        zero = builder.constant(0.0, DType.FLOAT32)
        return builder.reduce("sum", self.evaluator.where(here, value, zero), self.rows)

    def at_column(self, expr: Expr) -> Expr:
        """``expr`` at the columns' rows."""
        return move(expr, {self.rows: Index(self.columns)})

    def neighbour(self, expr: Expr, dim: str, by: int) -> Expr:
        """``expr`` at the row ``by`` rows later than that of ``dim``; 0 outside the sequence."""
        if self.rows not in expr.axes:
            return expr
        later = -by if self.reverse else by
        return move(expr, {self.rows: call("add", Index(dim), later)})

    def compare(self, fn: str, left: Value, right: Value, more: int = 0) -> Value:
        """left fn right + more."""
        builder = self.evaluator.builder
        if more:
            number = builder.constant(more, DType.INT32)
            right = builder.elementwise("add", right, number, dtype=DType.INT32)
        return builder.elementwise(fn, left, right, dtype=DType.BOOL)

    def visible(self, after: bool) -> Value:
        """Which columns a row sees: the rows before it, and itself with ``after``.

        Told by where they stand in their chunk, which is the same in all of them. What is past the
        last row comes after each that exists. Rows past the last see nothing where they may mix
        with others, in what is solved for.
        """
        builder, row = self.evaluator.builder, self.place()
        column = builder.rename(row, self.rows, self.columns, f"{row.name}_before")
        seen = self.compare("ge" if after else "gt", row, column)
        both = seen if after else self.evaluator.both(seen, builder.bound(self.rows))
        assert both is not None
        return both

    def one_where(self, keep: Value | None, value: Value, hint: str = "") -> Value:
        """``value`` where ``keep`` holds, 1 elsewhere."""
        if keep is None:
            return value
        one = self.evaluator.builder.constant(1.0, DType.FLOAT32)
        return self.evaluator.where(keep, value, one, hint)


def symbol(expr: Expr, axis: str) -> str:
    """The tensor with ``axis`` that an expression is about: ``scale * l2norm(q, D)`` --> q."""
    names = (node.called for node in walk(expr) if isinstance(node, Ref) and axis in node.axes)
    found = next(names, "").rpartition(".")[2]
    return found if found.isidentifier() else ""


def pair_name(left: Expr, right: Expr, axis: str) -> str:
    """What the products of two rows are called: q and k --> qk, query and key --> query_key."""
    return joined([symbol(expr, axis) or "x" for expr in (left, right)])


def place_rows(
    evaluator: Evaluator,
    rows: str,
    dim: str,
    start: Value,
    reverse: bool,
    hint: str,
    whole: bool = False,
) -> Value:
    """Put a block of ``rows`` on the tile along ``dim``; their numbers in the order of the
    recurrence, which with ``reverse`` begins at the last. ``whole``: all of them exist."""
    builder, size = evaluator.builder, evaluator.size(rows)
    number = builder.range(rows, start, hint)
    if dim != rows:
        number = builder.rename(number, rows, dim, f"{hint}_before")
    exists = None
    if not whole:
        exists = builder.elementwise("lt", number, size, dtype=DType.BOOL, hint=f"{hint}_exists")
    place = from_end(evaluator, rows, number, hint) if reverse else number
    builder.place(dim, place, exists)
    return number


class Request(NamedTuple):
    """Pairs of rows: left_t times what is left in row t, of ``state``, of a right_s that row s
    wrote to ``targets``; ``after``: a row sees its own write."""

    left: Expr
    right: Expr
    after: bool
    state: int = 0
    targets: frozenset[int] = frozenset({0})


class Transfer(ABC):
    """What is left in each of some states, after some rows, of each and of what was written to it.

    Where a result tells states apart, it lists those that anything is left of; None stands for all
    of one.
    """

    def __init__(self, pairs: Pairs, axis: str) -> None:
        self.pairs, self.axis = pairs, axis
        self.evaluator, self.builder = pairs.evaluator, pairs.evaluator.builder

    @property
    def by_columns(self) -> bool:
        """Whether one walk over the chunk's columns makes all scores."""
        return False

    @property
    def scores_first(self) -> bool:
        """Whether scores are made before what is read of the chunk's start, not where they are
        needed: which of both takes fewer registers was measured."""
        return True

    @abstractmethod
    def seen_by(self, query: Expr, state: int, after: bool) -> list[tuple[int, list[Expr]]]:
        """(state at the chunk's start, factors of what each row's query reads of it)."""

    @abstractmethod
    def left_of(self, key: Expr, state: int, targets: frozenset[int]) -> list[Expr] | None:
        """The factors of what is left of each column's key at the chunk's end; None: nothing."""

    @abstractmethod
    def totals(self, state: int) -> list[tuple[int, Value | None]]:
        """(state at the chunk's start, what is left of it over the whole chunk)."""

    @abstractmethod
    def scores(self, requests: Sequence[Request]) -> list[Value]:
        """sum over the axis of left_t * right_s * (decay from s to t), 0 where t sees no s."""

    def _score(self, left: Expr, right: Expr) -> Value:
        factors = [*factors_of(left), *factors_of(self.pairs.at_column(right))]
        return contract(
            self.evaluator, factors, (self.axis,), hint=pair_name(left, right, self.axis)
        )

    def _times(self, pairs: Value, kept: Value) -> Value:
        name = f"{self.builder.naming.stem(pairs)}_decayed"
        return self.builder.elementwise("mul", pairs, kept, dtype=DType.FLOAT32, hint=name)

    def _masked(self, pairs: Value, after: bool) -> Value:
        zero = self.builder.constant(0.0, DType.FLOAT32)
        name = f"A_{self.builder.naming.stem(pairs).removesuffix('_decayed')}"
        return self.evaluator.where(self.pairs.visible(after), pairs, zero, name)


class Decay(Transfer):
    """What is left of one state, and of what was written to it; None stands for all of it."""

    def seen_by(self, query: Expr, state: int, after: bool) -> list[tuple[int, list[Expr]]]:
        return [(0, self.seen(query, after))]

    def left_of(self, key: Expr, state: int, targets: frozenset[int]) -> list[Expr] | None:
        return self.left(key)

    def totals(self, state: int) -> list[tuple[int, Value | None]]:
        return [(0, self.total())]

    @abstractmethod
    def rows(self, after: bool) -> Ref | None:
        """From the chunk's start to each row, the row's own decay included with ``after``."""

    @abstractmethod
    def to_end(self) -> Ref | None:
        """From each column to the chunk's end."""

    def seen(self, query: Expr, after: bool) -> list[Expr]:
        """The factors of each row's query, decayed from the chunk's start."""
        factors, rows = factors_of(query), self.rows(after)
        if rows is None:
            return factors
        return [*factors, rows] if self.axis in rows.axes else [rows, *factors]

    def left(self, key: Expr) -> list[Expr]:
        """The factors of what is left of each column's key at the chunk's end."""
        factors, left = factors_of(self.pairs.at_column(key)), self.to_end()
        return factors if left is None else [*factors, left]

    @abstractmethod
    def total(self) -> Value | None:
        """Over the whole chunk."""

    @abstractmethod
    def spread(self, weights: Value, key: Expr, after: bool) -> Value:
        """sum over s of weights[t, s] * key_s * (decay from s to t), over what t sees."""

    def _through(self, pairs: Value, key: Expr) -> Value:
        """The sum over s of pairs[t, s] * key_s."""
        factors = [self.evaluator.named(pairs), *factors_of(self.pairs.at_column(key))]
        return contract(self.evaluator, factors, (self.pairs.columns,))


class NoDecay(Decay):
    """Everything stays."""

    def rows(self, after: bool) -> Ref | None:
        return None

    def to_end(self) -> Ref | None:
        return None

    def total(self) -> Value | None:
        return None

    def scores(self, requests: Sequence[Request]) -> list[Value]:
        return [self._masked(self._score(r.left, r.right), r.after) for r in requests]

    def spread(self, weights: Value, key: Expr, after: bool) -> Value:
        return self._through(self._masked(weights, after), key)


class Factors(Decay):
    """A factor per row, the same for the whole state or one for each entry of ``axis``."""

    def __init__(self, pairs: Pairs, axis: str, value: Expr) -> None:
        super().__init__(pairs, axis)
        self.value = value

    @property
    def by_columns(self) -> bool:
        return self.axis in self.value.axes

    def _here(self) -> Value:
        """Each row's own factor, 1 past the last row."""
        bound = self.builder.bound(self.pairs.rows)
        return self.pairs.one_where(bound, self.evaluator.real(self.value), "decay")

    def _before(self) -> Value:
        """The factor of the row above."""
        return self.evaluator.real(self.pairs.neighbour(self.value, self.pairs.rows, -1))

    def rows(self, after: bool) -> Ref | None:
        pairs = self.pairs
        factor = self._here()
        if not after:
            later = pairs.compare("gt", pairs.row_number, pairs.start)
            factor = pairs.one_where(later, self._before())
        kept = self.builder.scan(factor, pairs.rows, op="prod", hint=TO_ROW[after])
        return self.evaluator.named(kept)

    def to_end(self) -> Ref | None:
        pairs, builder = self.pairs, self.builder
        after = self.evaluator.real(pairs.neighbour(self.value, pairs.columns, 1))
        inside = pairs.compare("lt", pairs.column_number, pairs.last_row())
        factor = pairs.one_where(inside, after)
        scanned = builder.scan(factor, pairs.columns, reverse=True, op="prod", hint="decay_to_end")
        return self.evaluator.named(scanned)

    def total(self) -> Value | None:
        here = self.evaluator.spread(self._here(), frozenset({self.pairs.rows}))
        return self.builder.reduce("prod", here, self.pairs.rows, "decay_of_chunk")

    def scores(self, requests: Sequence[Request]) -> list[Value]:
        if not requests:
            return []
        if self.by_columns:
            return self._walked_scores(requests)
        return [self._decayed(self._score(r.left, r.right), r.after) for r in requests]

    def spread(self, weights: Value, key: Expr, after: bool) -> Value:
        if self.by_columns:
            return self._spread_by_columns(weights, key, after)
        return self._through(self._decayed(weights, after), key)

    def _decayed(self, pairs: Value, after: bool) -> Value:
        """Pairs times the decay between them, 0 where t does not see s."""
        return self._masked(self._times(pairs, self._between(after)), after)

    def _between(self, after: bool) -> Value:
        """P(t, s): the product of the factors of the rows after s, up to t or to the one above."""
        pairs = self.pairs
        if after:
            later = pairs.compare("gt", pairs.row_number, pairs.column_number)
            factor = pairs.one_where(later, self._here())
        else:
            later = pairs.compare("gt", pairs.row_number, pairs.column_number, more=1)
            factor = pairs.one_where(later, self._before())
        return self.builder.scan(factor, pairs.rows, op="prod", hint=BETWEEN[after])

    # ------------------------------------------------------- a factor for each entry of the axis

    def _walked_scores(self, requests: Sequence[Request]) -> list[Value]:
        """One column at a time, from the last: what is left of its write is multiplied on."""
        points = sorted({r.after for r in requests})
        lefts = [self.evaluator.real(r.left) for r in requests]
        pairs = frozenset({self.pairs.rows, self.pairs.columns})
        zero = self.builder.constant(0.0, DType.FLOAT32, pairs)

        def body(
            column: Value, kept: Mapping[bool, Value], scores: tuple[Value, ...]
        ) -> list[Value]:
            return [
                self._with_column(column, kept[r.after], left, r, score)
                for left, r, score in zip(lefts, requests, scores, strict=True)
            ]

        names = [f"A_{pair_name(r.left, r.right, self.axis)}" for r in requests]
        return self._walk_columns(points, [(name, zero) for name in names], body)

    def _spread_by_columns(self, weights: Value, key: Expr, after: bool) -> Value:
        """``spread`` one column at a time, from the last."""
        builder, pairs = self.builder, self.pairs
        axes = frozenset({pairs.rows, self.axis})
        zero = builder.constant(0.0, DType.FLOAT32, axes)
        seen = self._masked(weights, after)

        def body(column: Value, kept: Mapping[bool, Value], sums: tuple[Value, ...]) -> list[Value]:
            here = pairs.compare("eq", pairs.column_number, column)
            none = builder.constant(0.0, DType.FLOAT32)
            weight = builder.reduce("sum", self.evaluator.where(here, seen, none), pairs.columns)
            entry = self.evaluator.real(move(key, {pairs.rows: Index(pairs.row)}))
            term = builder.elementwise("mul", kept[after], entry, dtype=DType.FLOAT32)
            term = builder.elementwise("mul", weight, term, dtype=DType.FLOAT32)
            return [builder.elementwise("add", sums[0], term, dtype=DType.FLOAT32)]

        return self._walk_columns([after], [("spread", zero)], body)[0]

    def _walk_columns(
        self, points: Sequence[bool], carried: Sequence[tuple[str, Value]], body: ColumnBody
    ) -> list[Value]:
        """Visit the chunk's columns from the last to the first.

        ``body`` gets the column, the decay from it to each row (by whether the row's own counts),
        and what is carried; it gives what is carried on.
        """
        pairs, builder = self.pairs, self.builder
        one = builder.constant(1.0, DType.FLOAT32, frozenset({pairs.rows, self.axis}))
        first, count = builder.constant(0, DType.INT32), self._count()
        starts = [*((BETWEEN[after], one) for after in points), *carried]
        with builder.loop(f"{pairs.rows.lower()}_turn", first, count, 1, starts) as loop:
            column = self._place_column(loop.variable, count)
            kept = dict(zip(points, loop.carried, strict=False))
            factor = self.evaluator.real(pairs.neighbour(self.value, pairs.row, 1))
            for after in points:
                later = pairs.compare("gt", pairs.row_number, column, more=0 if after else 1)
                step = pairs.one_where(later, factor)
                kept[after] = builder.elementwise(
                    "mul", kept[after], step, dtype=DType.FLOAT32, hint=f"{BETWEEN[after]}_here"
                )
            made = body(column, kept, loop.carried[len(points) :])
            loop.yields = (*(kept[after] for after in points), *made)
        return list(loop.results[len(points) :])

    def _count(self) -> Value:
        """How many rows the chunk has."""
        size = self.evaluator.size(self.pairs.rows)
        rest = integer(self.evaluator, "sub", size, self.pairs.start)
        block = self.builder.block(self.pairs.rows)
        return integer(self.evaluator, "min", rest, block, hint="rows_here")

    def _place_column(self, turn: Value, count: Value) -> Value:
        """Put the column of a turn, the last one first, in place; its number."""
        pairs, evaluator = self.pairs, self.evaluator
        one = self.builder.constant(1, DType.INT32)
        end = integer(evaluator, "add", pairs.start, count)
        last = integer(evaluator, "sub", end, one, hint="last_column")
        column = integer(evaluator, "sub", last, turn, hint="column")
        place = column
        if pairs.reverse:
            place = from_end(evaluator, pairs.rows, column)
        self.builder.place(pairs.row, place)
        return column

    def _with_column(
        self, column: Value, kept: Value, left: Value, request: Request, score: Value
    ) -> Value:
        """``score`` with one more column filled in."""
        pairs, builder, evaluator = self.pairs, self.builder, self.evaluator
        right = evaluator.real(move(request.right, {pairs.rows: Index(pairs.row)}))
        product = builder.elementwise("mul", kept, left, dtype=DType.FLOAT32)
        product = builder.elementwise("mul", product, right, dtype=DType.FLOAT32)
        product = evaluator.masked(product, self.axis, 0.0)
        entries = builder.reduce("sum", product, self.axis, "entries")
        here = pairs.compare("eq", pairs.column_number, column)
        fn = "ge" if request.after else "gt"
        both = evaluator.both(here, pairs.compare(fn, pairs.row_number, column))
        assert both is not None
        return evaluator.where(both, entries, score, score.name)
