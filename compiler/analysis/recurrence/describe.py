"""What was found in a recurrence, in lines for a reader: the names are the spec's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from ....ir.expression import Call, Expr, Index, Literal, Read, Reduce, Ref, Size, call
from ....ir.mixer import Recurrence, State
from ....ir.names import names_in
from ....ir.node import At, Point
from ....ir.recurrence_forms import Affine, Classified, Coupled, Dense, Form, Loop, Matrix, Reading
from ....ir.rewriting import rebuild
from ....ir.single_assignment import after_row, before_row
from ..gradients.partials import negative
from .flatten import Flat
from .polynomial import NOTHING, plus, times

_KINDS = {
    "elementwise": "row by row, each entry by itself",
    "mixing": "row by row, states mixed by weights that stay the same",
    "dots": "row by row, with products inside",
}
LONGEST = 400  # characters


def describe(
    classified: Classified, recurrence: Recurrence, flat: Flat | None = None
) -> tuple[str, ...]:
    """One line or more for each component: its class, its formula, and where it is read.

    With ``flat`` the recurrence is that one's, and the lines have the names from before.
    """
    writer = _Writer.of(classified, recurrence, flat)
    return tuple(line for form in classified.components for line in writer.form(form))


@dataclass(frozen=True, slots=True)
class _Writer:
    """``readings`` by name; ``rows`` are the step's own names in terms of the components.

    ``parts`` are the dims that ``over`` was laid out from, each with its position; ``origins`` are
    the step's own names as they were then.
    """

    over: str
    earlier: str
    now: str
    readings: Mapping[str, Reading]
    rows: Mapping[str, Expr]
    states: Mapping[str, State]
    parts: tuple[tuple[str, Expr], ...] = ()
    origins: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(classified: Classified, recurrence: Recurrence, flat: Flat | None) -> _Writer:
        t = recurrence.over.lower()
        return _Writer(
            recurrence.over,
            f"{t}+1" if recurrence.reverse else f"{t}-1",
            t,
            {reading.ref.name: reading for reading in classified.readings},
            dict(classified.own),
            {state.name: state for state in recurrence.states},
            () if flat is None else flat.parts,
            {} if flat is None else {ref.name: name for name, ref, _ in flat.rows},
        )

    def form(self, form: Form) -> Iterator[str]:
        match form:
            case Matrix(state):
                yield f"{state.name}: {self._chunk(form)}"
                yield f"  {self._matrix(form)}"
                yield from self._reads(state)
            case Coupled(states):
                names = ", ".join(s.name for s in states)
                yield f"{names}: chunks of {self.over}, coupled by scalars of the row"
                for number in range(len(states)):
                    yield f"  {self._coupled(form, number)}"
                for state in states:
                    yield from self._reads(state)
            case Affine():
                yield from self._affine(form)
            case Dense(state):
                same = "the same in each row" if form.constant else "one for each row"
                yield f"{state.name}: row by row, one product with a matrix, {same}"
                mixed = Read(self.before(state), ((form.axis, Index(form.column)),))
                total: Expr = Reduce("sum", call("mul", form.matrix, mixed), (form.column,))
                yield f"  {self.equation(state, plus(total, form.offset or NOTHING))}"
            case Loop(states, kind, term, reason):
                names = ", ".join(s.name for s in states)
                yield f"{names}: {_KINDS[kind]}"
                what = "in the way" if _is_named(term) else f"in the way: {self.text(term)}"
                yield f"  {what} ({reason})"
            case _:
                assert_never(form)

    def _chunk(self, form: Matrix) -> str:
        entry = form.key_axis in form.decay.axes
        decay = f"decay per entry of {form.key_axis}" if entry else "one decay for each row"
        decay = "no decay" if self.text(form.decay) == "1" else decay
        count = len(form.corrections)
        plural = "" if count == 1 else "s"
        corrections = f", {count} correction{plural} of rank one" if count else ""
        return f"chunks of {self.over}, {decay}{corrections}"

    def _matrix(self, form: Matrix) -> str:
        before = self.before(form.state)
        corrections = [(u, w, before) for u, w in form.corrections]
        total = _updated(times(form.decay, before), corrections, form.writes, form.key_axis)
        return self.equation(form.state, total)

    def _coupled(self, form: Coupled, number: int) -> str:
        total: Expr = NOTHING
        for decay, state in zip(form.decay[number], form.states, strict=True):
            if decay is not None:
                total = plus(total, times(decay, self.before(state)))
        corrections = [
            (u, w, self.before(self.states[name])) for u, w, name in form.corrections[number]
        ]
        total = _updated(total, corrections, form.writes[number], form.key_axis)
        return self.equation(form.states[number], total)

    def _affine(self, form: Affine) -> Iterator[str]:
        semiring = {"add": "+", "mul": "*"}
        pair = ", ".join(semiring.get(fn, fn) for fn in (form.plus, form.times))
        names = ", ".join(s.name for s in form.states)
        constant = ", with the same coefficients in each row" if form.constant else ""
        yield f"{names}: a scan over {self.over}, affine in ({pair}){constant}"
        for state, row, offset in zip(form.states, form.coefficients, form.offsets, strict=True):
            parts: list[Expr] = [
                _product(form.times, coefficient, self.before(other))
                for coefficient, other in zip(row, form.states, strict=True)
                if coefficient is not None
            ]
            parts += [] if offset is None else [offset]
            total = parts[0] if parts else NOTHING
            for part in parts[1:]:
                total = plus(total, part) if form.plus == "add" else call(form.plus, total, part)
            yield f"  {self.equation(state, total)}"

    def _reads(self, state: State) -> Iterator[str]:
        for name, reading in self.readings.items():
            if reading.state == state.name:
                users = [
                    self.origins.get(row, row)
                    for row, value in self.rows.items()
                    if _mentions(value, name)
                ]
                point = "after the row's write" if reading.after else "before the row"
                where = f" in {', '.join(users)}" if users else ""
                yield f"  read {point}{where}: {self.text(reading.ref)}"

    def before(self, state: State) -> Ref:
        """The state before the row."""
        return before_row(state, state.dims | {self.over})

    def equation(self, state: State, value: Expr) -> str:
        """``S[t] = value``."""
        return f"{state.name}[{self.now}] = {self.text(value)}"

    def text(self, expr: Expr) -> str:
        """An expression with rows as subscripts, cut where it is very long."""
        text = str(self._named(expr))
        return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"

    def _named(self, expr: Expr) -> Expr:
        for dim, position in self.parts:
            if expr == position:
                return Index(dim)
        if isinstance(expr, Read):
            kept = tuple(
                (dim, index)
                for dim, index in expr.at
                if not _is_group(dim, index) and (dim, index) not in self.parts
            )
            inner = rebuild(expr, self._named)
            assert isinstance(inner, Read)
            places = tuple((dim, self._named(index)) for dim, index in kept)
            return _read(inner.x, places)
        if not isinstance(expr, Ref):
            return rebuild(expr, self._named)
        reading = self.readings.get(expr.name)
        if reading is not None:
            return self._reading(reading)
        name = expr.called
        match expr.point:
            case Point(at=At.BEFORE):
                name = f"{name}[{self.earlier}]"
            case Point(at=At.AFTER):
                name = f"{name}[{self.now}]"
        return Ref(self.origins.get(name, name), expr.dims, expr.kind)

    def _reading(self, reading: Reading) -> Expr:
        state = self.states[reading.state]
        row = after_row(state) if reading.after else before_row(state)
        value: Expr = Read(row, reading.at) if reading.at else row
        return self._named(Reduce("sum", times(reading.query, value), reading.axes))


def _updated(
    total: Expr,
    corrections: Iterable[tuple[Expr, Expr, Ref]],
    writes: Iterable[tuple[Expr, Expr]],
    axis: str,
) -> Expr:
    """What is left of the state and what is written, by the vector along which it is written."""
    written = dict[Expr, Expr]()
    for k, v in writes:
        written[k] = plus(written.get(k, NOTHING), v)
    for u, w, state in corrections:
        value = negative(Reduce("sum", times(negative(w), state), (axis,)))
        if not isinstance(w, Call) or w.fn != "neg":
            value = Reduce("sum", times(w, state), (axis,))
        written[u] = plus(written.get(u, NOTHING), value)
    for k, v in written.items():
        total = plus(total, times(k, v))
    return total


def _is_group(dim: str, index: Expr) -> bool:
    """Whether this is the group of heads that a head reads, which a spec does not write."""
    match index:
        case Call("floordiv", (Index(heads), Call("floordiv", (Size(all_), Size(groups))))):
            return heads == all_ and groups == dim
        case _:
            return False


def _read(x: Expr, at: tuple[tuple[str, Expr], ...]) -> Expr:
    return Read(x, at) if at else x


def _product(fn: str, coefficient: Expr, state: Expr) -> Expr:
    return times(coefficient, state) if fn == "mul" else plus(state, coefficient)


def _mentions(value: Expr, name: str) -> bool:
    return name in names_in(value)


def _is_named(term: Expr) -> bool:
    """Whether a term says nothing beside its reason."""
    inner = isinstance(term, Ref) and term.point is not None and term.point.at is At.VERSION
    return isinstance(term, Literal) or inner
