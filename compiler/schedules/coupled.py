"""Matrix states that mix by scalars, in chunks: a momentum and what it moves.

As in ``chunk``, with the decays from row to row as small matrices A_t of scalars: P(t, s) is the
product A_t ... A_(s+1), and what is written to state j reaches state i by the entry P_ij. A row's
corrections read one state; they are solved for once, whatever the states that they are written to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ...ir.expression import Expr, Kind, Ref, call
from ...ir.recurrence_forms import Affine, Coupled, Reading
from ...ir.recurrence_tasks import Carrying
from ...ir.tile import DType, Value
from ..tiles.contraction import accumulate, contract, factors_of
from ..tiles.evaluator import Evaluator
from .decay import Pairs, pair_name
from .scan import Entries, product, reachable

# (key, entry, the states that it is written to)
Term = tuple[Expr, Expr, frozenset[int]]


@dataclass
class CoupledChunk:
    """One chunk of coupled states; ``starts`` are their values before it."""

    pairs: Pairs
    form: Coupled
    carrying: tuple[Carrying, ...]
    starts: tuple[Value, ...]
    readings: tuple[Reading, ...]
    made: dict[tuple[str, bool], Entries] = field(default_factory=dict)

    @property
    def evaluator(self) -> Evaluator:
        """That of the program."""
        return self.pairs.evaluator

    def run(self) -> tuple[Value, ...]:
        """Readings, bound; then the states after the chunk."""
        builder = self.evaluator.builder
        for carrying, start in zip(self.carrying, self.starts, strict=True):
            builder.bind(carrying.before, start)
        terms = self._terms()
        names = [state.name for state in self.form.states]
        for reading in self.readings:
            builder.comment(f"{reading.state} read")
            state = names.index(reading.state)
            value = self._read(reading.query, state, reading.after, terms)
            builder.bind(reading.ref, value, here=True)
        builder.comment(f"{', '.join(names)} after the chunk")
        return tuple(self._after(n, terms) for n in range(len(names)))

    # ------------------------------------------------------------------------------- terms

    def _terms(self) -> list[Term]:
        """What the rows write, with the corrections solved for."""
        writes = self._together(
            (k, v, n) for n, pairs in enumerate(self.form.writes) for k, v in pairs
        )
        corrections = [(u, w, s, n) for n, of in enumerate(self.form.corrections) for u, w, s in of]
        if not corrections:
            return writes
        builder, (_, w, source, _) = self.evaluator.builder, corrections[0]
        builder.comment("what the rows correct, all of the chunk at once")
        state = [s.name for s in self.form.states].index(source)
        seen = self._read(w, state, False, writes)
        seen = self.evaluator.masked(seen, self.pairs.rows, 0.0)
        unknown = self._together((u, w, n) for u, _, _, n in corrections)
        factors = [self._pair(w, u, state, False, targets) for u, _, targets in unknown]
        matrix = self._sum(factors)
        solved = builder.substitute(
            matrix, seen, self.pairs.rows, self.pairs.columns, "corrections"
        )
        axes = self.form.states[0].dims - {self.form.key_axis} | {self.pairs.rows}
        ref = Ref(f"{source}.corrections", axes, Kind.REAL)
        builder.bind(ref, solved, here=True)
        return self._together(
            (k, v, n)
            for k, v, targets in [*writes, *((u, ref, targets) for u, _, targets in unknown)]
            for n in sorted(targets)
        )

    def _together(self, writes: Iterable[tuple[Expr, Expr, int]]) -> list[Term]:
        """Writes with equal keys as one, for all the states that they go to."""
        entries: dict[tuple[Expr, int], Expr] = {}
        for key, entry, state in writes:
            known = entries.get((key, state))
            entries[key, state] = entry if known is None else call("add", known, entry)
        targets: dict[tuple[Expr, Expr], set[int]] = {}
        for (key, state), entry in entries.items():
            targets.setdefault((key, entry), set()).add(state)
        return [(key, entry, frozenset(states)) for (key, entry), states in targets.items()]

    # ---------------------------------------------------------------------------- products

    def _read(self, query: Expr, state: int, after: bool, terms: Sequence[Term]) -> Value:
        """sum(query * state, axis) in each row."""
        values = []
        for (i, j), kept in self._rows(after).items():
            if i == state:
                factors = [
                    self.evaluator.named(kept),
                    *factors_of(query),
                    self.carrying[j].before,
                ]
                values.append(contract(self.evaluator, factors, (self.form.key_axis,)))
        value = self._sum(values)
        for key, entry, targets in terms:
            pair = self._pair(query, key, state, after, targets)
            factors = [self.evaluator.named(pair), *factors_of(self.pairs.at_column(entry))]
            value = contract(self.evaluator, factors, (self.pairs.columns,), acc=value)
        return value

    def _pair(
        self, left: Expr, right: Expr, state: int, after: bool, targets: frozenset[int]
    ) -> Value:
        """What row t reads of ``state`` of what row s wrote to ``targets``, 0 where unseen."""
        evaluator, builder = self.evaluator, self.evaluator.builder
        factors = [*factors_of(left), *factors_of(self.pairs.at_column(right))]
        axis = self.form.key_axis
        name = pair_name(left, right, axis)
        score = contract(evaluator, factors, (axis,), hint=name)
        between = self._between(after)
        kept = self._sum([between[state, j] for j in sorted(targets) if (state, j) in between])
        score = builder.elementwise("mul", score, kept, dtype=DType.FLOAT32, hint=f"{name}_decayed")
        zero = builder.constant(0.0, DType.FLOAT32)
        return evaluator.where(self.pairs.visible(after), score, zero, f"A_{name}")

    def _after(self, state: int, terms: Sequence[Term]) -> Value:
        """A state after the chunk."""
        builder = self.evaluator.builder
        values = [
            builder.elementwise("mul", total, self.starts[j], dtype=DType.FLOAT32)
            for (i, j), total in self._total().items()
            if i == state
        ]
        value, left = self._sum(values), self._to_end()
        for key, entry, targets in terms:
            reached = [left[state, j] for j in sorted(targets) if (state, j) in left]
            if reached:
                kept = self.evaluator.named(self._sum(reached))
                columns = [self.pairs.at_column(key), self.pairs.at_column(entry)]
                factors = [kept, *(f for column in columns for f in factors_of(column))]
                value = contract(self.evaluator, factors, (self.pairs.columns,), acc=value)
        return value

    def _sum(self, values: Sequence[Value]) -> Value:
        if values:
            return accumulate(self.evaluator, values)
        return self.evaluator.builder.constant(0.0, DType.FLOAT32)

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

    def _total(self) -> Entries:
        """Over the whole chunk: what there is from its start to its last row."""
        rows = self._rows(True)
        return {place: self.pairs.in_last_row(value) for place, value in rows.items()}

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
        for i, j in reachable(self._affine):
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
