"""Some states in one chunk: their corrections solved for, what is read of them, what they become.

``chunk`` has the formulas. States that mix by scalars (a momentum and what it moves) go the same
way as one that stands alone: what is written to state j reaches state i by the decay from one to
the other, and a transfer says what that is. A row's corrections read one state; they are solved
for once, whatever the states that they are written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ...ir.expression import Expr, Kind, Ref, call
from ...ir.recurrence_forms import Coupled, Matrix, Reading
from ...ir.recurrence_tasks import Carrying
from ...ir.tile import DType, Value
from ..analysis.recurrence.matrix import is_choice
from ..tiles.contraction import contract, factors_of
from ..tiles.evaluator import Evaluator
from ..tiles.sums import accumulate
from .decay import Decay, Request, Transfer, pair_name, symbol

# (key, entry, the states that it is written to)
Term = tuple[Expr, Expr, frozenset[int]]
# (u, w, the state that w reads, the states that u is written to)
Correction = tuple[Expr, Expr, int, frozenset[int]]


@dataclass
class ChunkStates:
    """States of one form in one chunk; ``starts`` are their values before it."""

    transfer: Transfer
    form: Matrix | Coupled
    carrying: tuple[Carrying, ...]
    starts: tuple[Value, ...]
    readings: tuple[Reading, ...]
    scores: dict[Request, Value] = field(default_factory=dict)

    @property
    def evaluator(self) -> Evaluator:
        """That of the program."""
        return self.transfer.evaluator

    def run(self) -> tuple[Value, ...]:
        """Readings, bound; then the states after the chunk."""
        builder = self.evaluator.builder
        for carrying, start in zip(self.carrying, self.starts, strict=True):
            builder.bind(carrying.before, start)
        terms, corrections = _writes(self.form), _corrections(self.form)
        wanted = self._wanted(terms, corrections)
        solved = {w for _, w, _, _ in corrections}
        if self.transfer.scores_first:
            self._score(r for r in wanted if self.transfer.by_columns or r.left in solved)
        names = ", ".join(carrying.name for carrying in self.carrying)
        if corrections:
            builder.comment(f"{names}: what the rows correct, all of the chunk at once")
            terms = self._corrected(terms, corrections)
        if self.transfer.scores_first:
            self._score(wanted)  # what is solved for has had the registers
        for reading in self.readings:
            builder.comment(f"{self.carrying[self._place(reading)].name} read")
            builder.bind(reading.ref, self._read(reading, terms), here=True)
        builder.comment(f"{names} after the chunk")
        return tuple(self._after(state, terms) for state in range(len(self.carrying)))

    def _wanted(
        self, terms: Sequence[Term], corrections: Sequence[Correction]
    ) -> dict[Request, None]:
        """The pairs that the chunk needs."""
        read = [r for r in self.readings if r.axes == (self.form.key_axis,)]
        left = [(r.query, self._place(r), r.after) for r in read]
        left += [(w, source, False) for _, w, source, _ in corrections]
        keys = [(k, targets) for k, _, targets in terms]
        keys += [(u, targets) for u, _, _, targets in corrections]
        return {Request(x, y, after, n, to): None for x, n, after in left for y, to in keys}

    def _score(self, requests: Iterable[Request]) -> None:
        new = [request for request in requests if request not in self.scores]
        self.scores |= zip(new, self.transfer.scores(new), strict=True)

    def _pair(self, request: Request) -> Value:
        """A score, made now if it has not been made together with others."""
        self._score([request])
        return self.scores[request]

    # ------------------------------------------------------------------------- corrections

    def _corrected(self, terms: list[Term], corrections: Sequence[Correction]) -> list[Term]:
        """The writes of the chunk with its corrections solved for.

        Where a row writes its correction to the key that it writes a value to, the two are one:
        (1 - A_wk) (V + R) = V + P(t) w S0.
        """
        builder, (_, w, source, _) = self.evaluator.builder, corrections[0]
        unknown = [(u, targets) for u, _, _, targets in corrections]
        same = [t for t in terms if [(t[0], t[2])] == unknown]
        others = [t for t in terms if t not in same]
        value = self._seen(w, source, False, others)
        for _, entry, _ in same:
            written = self.evaluator.real(entry)
            value = builder.elementwise("add", written, value, dtype=DType.FLOAT32, hint="written")
        rows, columns = self.transfer.pairs.rows, self.transfer.pairs.columns
        value = self.evaluator.masked(value, rows, 0.0)
        matrix = self._sum([self._pair(Request(w, u, False, source, to)) for u, to in unknown])
        solved = builder.substitute(matrix, value, rows, columns, "corrections")
        state = self.form.states[source]
        axes = state.dims - {self.form.key_axis} | {rows}
        ref = Ref(f"{self.carrying[source].name}.corrections", axes, Kind.REAL)
        builder.bind(ref, solved, here=True)
        self.evaluator.zero_outside.add(ref.name)  # as what it is solved from
        return [*others, *((u, ref, to) for u, to in unknown)]

    # --------------------------------------------------------------------------- products

    def _read(self, reading: Reading, terms: Sequence[Term]) -> Value:
        """sum(query * state, axes) in each row."""
        if reading.axes != (self.form.key_axis,):
            return self._along_axis(reading, terms)
        return self._seen(reading.query, self._place(reading), reading.after, terms)

    def _place(self, reading: Reading) -> int:
        """Which of the states is read."""
        return [state.name for state in self.form.states].index(reading.state)

    def _seen(self, query: Expr, state: int, after: bool, terms: Sequence[Term]) -> Value:
        """What each row sees of a state: of the chunk's start, and of what the rows wrote."""
        value = self._from_start(query, state, after)
        for key, entry, targets in terms:
            pair = self._pair(Request(query, key, after, state, targets))
            value = self._through(pair, entry, value)
        return value

    def _from_start(self, query: Expr, state: int, after: bool) -> Value:
        """What row t sees, through its query, of the states that the chunk started from."""
        axis = self.transfer.axis
        return self._sum(
            [
                contract(
                    self.evaluator,
                    [*factors, self.carrying[source].before],
                    (axis,),
                    hint=f"{symbol(query, axis) or 'x'}_{self.carrying[source].name}_start",
                )
                for source, factors in self.transfer.seen_by(query, state, after)
            ]
        )

    def _through(self, pair: Value, entry: Expr, acc: Value) -> Value:
        """acc + the sum over the chunk's rows s of pair[t, s] * entry[s]."""
        pairs, seen = self.transfer.pairs, self.evaluator.named(pair)
        self.evaluator.zero_outside.add(seen.name)  # no row sees what is past the last
        factors = [seen, *factors_of(pairs.at_column(entry))]
        name = self.evaluator.builder.naming.stem(acc).removesuffix("_start")
        return self._summed(factors, acc, name)

    def _along_axis(self, reading: Reading, terms: Sequence[Term]) -> Value:
        """A reading that sums over the values' axes and keeps the one that decays differ along."""
        evaluator, builder, decay = self.evaluator, self.evaluator.builder, self.transfer
        assert isinstance(decay, Decay), "states that mix are read along their keys"
        query, rows = factors_of(reading.query), decay.rows(reading.after)
        value = contract(evaluator, [*query, self.carrying[0].before], reading.axes)
        if rows is not None:
            kept = evaluator.real(rows)
            value = builder.elementwise("mul", kept, value, dtype=DType.FLOAT32)
        for key, entry, _ in terms:
            weights = contract(
                evaluator,
                [*query, *factors_of(decay.pairs.at_column(entry))],
                reading.axes,
                hint=pair_name(reading.query, entry, reading.axes[0]),
            )
            more = decay.spread(weights, key, reading.after)
            value = builder.elementwise("add", value, more, dtype=DType.FLOAT32)
        return value

    def _after(self, state: int, terms: Sequence[Term]) -> Value:
        """A state after the chunk: the starts decayed, and what the rows wrote."""
        builder, pairs = self.evaluator.builder, self.transfer.pairs
        kept = []
        for source, total in self.transfer.totals(state):
            start = self.starts[source]
            if total is not None:
                start = builder.elementwise("mul", start, total, dtype=DType.FLOAT32)
            kept.append(start)
        value, name = self._sum(kept), f"{self.carrying[state].name}_after"
        for key, entry, targets in terms:
            left = self.transfer.left_of(key, state, targets)
            if left is not None:  # applied to the key: entries are the smaller tile
                factors = [*factors_of(pairs.at_column(entry)), *left]
                value = self._summed(factors, value, name)
        return value

    def _summed(self, factors: list[Expr], acc: Value, hint: str) -> Value:
        """acc + the sum over the chunk's rows of the product; where a choice leaves a row out, what
        the row holds counts for nothing, even if it is infinite or NaN."""
        chosen = next((factor for factor in factors if is_choice(factor)), None)
        rows = (self.transfer.pairs.columns,)
        return contract(self.evaluator, factors, rows, acc=acc, hint=hint, mask=chosen)

    def _sum(self, values: Sequence[Value]) -> Value:
        if values:
            return accumulate(self.evaluator, values)
        return self.evaluator.builder.constant(0.0, DType.FLOAT32)


def _writes(form: Matrix | Coupled) -> list[Term]:
    """What the rows write; with equal keys as one, for all the states that they go to."""
    if isinstance(form, Matrix):
        return [(key, entry, frozenset({0})) for key, entry in form.writes]
    entries: dict[tuple[Expr, int], Expr] = {}
    for state, writes in enumerate(form.writes):
        for key, entry in writes:
            known = entries.get((key, state))
            entries[key, state] = entry if known is None else call("add", known, entry)
    return _together((key, entry, state) for (key, state), entry in entries.items())


def _corrections(form: Matrix | Coupled) -> list[Correction]:
    """What the rows correct: all read the same of one state."""
    if isinstance(form, Matrix):
        return [(u, w, 0, frozenset({0})) for u, w in form.corrections]
    found = [(u, w, s, n) for n, of in enumerate(form.corrections) for u, w, s in of]
    if not found:
        return []
    source = [state.name for state in form.states].index(found[0][2])
    unknown = _together((u, w, n) for u, w, _, n in found)
    return [(u, w, source, targets) for u, w, targets in unknown]


def _together(written: Iterable[tuple[Expr, Expr, int]]) -> list[Term]:
    """Equal writes to several states as one."""
    targets: dict[tuple[Expr, Expr], set[int]] = {}
    for key, entry, state in written:
        targets.setdefault((key, entry), set()).add(state)
    return [(key, entry, frozenset(states)) for (key, entry), states in targets.items()]


__all__ = ["ChunkStates"]
