"""The adjoint of a recurrence of the matrix family: every gradient is a reading of a state.

For S' = a S + u (w . S) + k v with o = q . S', the cotangent P of the state runs the other way and
is of the same family, u and w exchanged:

    P = P + q do;   dr = u . P,  du = r . P,  dk = v . P,  dv = k . P;   P = a P + w dr

and the forward state, r = w . S now given, is read along its other axis: dq = do . S', dw = dr . S.
Only the decay pairs the two states, a da = sum(S o a P); along its axis this telescopes over rows
into what is known already (Yang et al. 2024, arXiv 2312.06635, appendix; with corrections and
reads before the update by the same argument):

    G[t] = G[t + 1] + (q dq)[t] - (u du + k dk)[t] + (w dw + q' dq')[t + 1],   G[T + 1] = S o dS

for reads after the update (q) and before it (q'); where S starts at 0, so does the sum of the same
changes from there on. No state is stored for any row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ....ir.expression import Call, Cumsum, Expr, Kind, Literal, Reduce, Ref, call
from ....ir.mixer import Equation, Recurrence, State
from ....ir.names import names_in
from ....ir.recurrence_forms import Classified, Matrix, Reading
from ....ir.rewriting import with_names
from ...analysis.gradients.derivatives import pullback, sum_to
from ...analysis.gradients.partials import ZERO, add, mul
from ...analysis.recurrence.classify import classify
from .adjoints import Adjoints


def matrix_adjoint(stage: Recurrence, adjoints: Adjoints, given: Mapping[str, Expr]) -> bool:
    """Add what a recurrence adds to the adjoints, if all its states are matrices; else False.

    ``given`` are the adjoints of its results.
    """
    own = {ref.name for ref in stage.own}
    found = classify(stage, [name for name in given if name in own])
    if not all(_is_simple(form, adjoints.active) for form in found.components):
        return False
    if not all(len(reading.axes) == 1 and not reading.at for reading in found.readings):
        return False
    _MatrixFamily(stage, found, adjoints, given).run()
    return True


def _is_simple(form: object, active: frozenset[str]) -> bool:
    """Whether a component is a matrix whose decay has a logarithm, or no gradient."""
    if not isinstance(form, Matrix) or form.state.kind is not Kind.REAL:
        return False
    own = {*form.state.listed} - {form.key_axis}
    fits = all(form.key_axis in k.axes and form.key_axis not in v.axes for k, v in form.writes)
    trained = not names_in(form.decay).isdisjoint(active)
    return fits and own == {*form.value_axes} and (form.log_decay is not None or not trained)


@dataclass
class _Component:
    """One matrix state: its coefficients as rows, and what its readings are called."""

    form: Matrix
    readings: list[Reading]
    cotangent: State
    corrected: list[Ref] = field(default_factory=list)  # w . S, a row of each correction
    d_corrected: list[Ref] = field(default_factory=list)
    d_query: dict[str, Ref] = field(default_factory=dict)
    d_other: list[tuple[Expr, Ref]] = field(default_factory=list)  # (coefficient, its adjoint)


class _MatrixFamily:
    def __init__(
        self,
        stage: Recurrence,
        found: Classified,
        adjoints: Adjoints,
        given: Mapping[str, Expr],
    ) -> None:
        self.stage, self.found, self.adjoints, self.given = stage, found, adjoints, given
        self.rows = frozenset({stage.over})
        self.names = {
            r.ref.name: Ref(adjoints.unused(f"{r.state}_read"), r.ref.axes | self.rows, Kind.REAL)
            for r in found.readings
        }
        self.components = [self._component(form) for form in found.components]

    def _component(self, form: object) -> _Component:
        assert isinstance(form, Matrix)
        state = form.state
        form = replace(
            form,
            decay=self._named(form.decay),
            log_decay=None if form.log_decay is None else self._named(form.log_decay),
            corrections=tuple((self._named(u), self._named(w)) for u, w in form.corrections),
            writes=tuple((self._named(k), self._named(v)) for k, v in form.writes),
        )
        readings = [
            replace(r, query=self._named(r.query))
            for r in self.found.readings
            if r.state == state.name
        ]
        cotangent = State(
            self.adjoints.unused(f"d_{state.name}_after"),
            state.dims,
            self.given.get(state.name, Literal(0.0)),
            listed=state.listed,
        )
        return _Component(form, readings, cotangent)

    def _named(self, value: Expr) -> Expr:
        """A value with readings under names that a mixer may have."""
        return with_names(value, self.names)

    def run(self) -> None:
        """The passes over the rows, component by component, the last one first."""
        adjoints = self.adjoints
        adjoints.active |= {ref.name for ref in self.names.values()}
        self._forward()
        for name, value in self.found.own:
            if name in self.given:
                above = sum_to(self.given[name], self.given[name].axes, value.axes | self.rows)
                adjoints.add(
                    pullback(self._named(value), above, adjoints.active, self.rows - value.axes)
                )
        for component in reversed(self.components):
            self._backward(component)
            self._read(component)
            self._coefficients(component)

    # ------------------------------------------------------------------------- forward again

    def _forward(self) -> None:
        """The states once more, for the readings and corrections that gradients need."""
        states: list[State] = []
        lines: list[Equation] = []
        needed = self._needed_readings()
        for component in self.components:
            form = component.form
            own = replace(form.state, name=self.adjoints.unused(f"{form.state.name}_again"))
            states.append(own)
            lines += self._reads(component, own.ref, needed, after=False)
            for _, w in form.corrections:
                value = Reduce("sum", mul(w, own.ref), (form.key_axis,))
                lines.append(Equation(self.adjoints.unused(f"{form.state.name}_corrected"), value))
                component.corrected.append(self._row(lines[-1]))
            lines.append(Equation(own.name, self._next(component, own.ref, component.corrected)))
            lines += self._reads(component, own.ref, needed, after=True)
        if needed or any(c.corrected for c in self.components):
            stage = self.stage
            self.adjoints.stage(
                Recurrence(stage.over, tuple(states), tuple(lines), reverse=stage.reverse)
            )

    def _reads(
        self, component: _Component, state: Ref, needed: frozenset[str], after: bool
    ) -> list[Equation]:
        return [
            Equation(self.names[r.ref.name].name, Reduce("sum", mul(r.query, state), r.axes))
            for r in component.readings
            if r.after == after and self.names[r.ref.name].name in needed
        ]

    def _needed_readings(self) -> frozenset[str]:
        """The readings whose value a gradient is computed from."""
        active = {*self.adjoints.active, *self.names}
        values = [e for c in self.components for e in _coefficients(c)]
        for name, value in self.found.own:
            if name in self.given:
                values += pullback(value, self.given[name], active).values()
        read = names_in(*values)
        for component in self.components:
            along = [r for r in component.readings if r.axes != (component.form.key_axis,)]
            if self._decays(component.form):
                read |= {r.ref.name for r in along}
        return frozenset(own.name for name, own in self.names.items() if {name, own.name} & read)

    def _next(
        self,
        component: _Component,
        state: Ref,
        corrected: list[Ref],
        seen: Callable[[Expr], Expr] = lambda value: value,
    ) -> Expr:
        """The state after a row; or, term by term, what is ``seen`` of it."""
        form = component.form
        if form.key_axis in form.decay.axes:
            value = mul(form.decay, seen(state))
        else:  # within the product, which rounds the same numbers as that of the cotangent
            value = seen(mul(form.decay, state))
        for (u, _), r in zip(form.corrections, corrected, strict=True):
            value = add(value, mul(u, seen(r)))
        for k, v in form.writes:
            value = add(value, mul(k, seen(v)))
        return value

    def _row(self, line: Equation) -> Ref:
        return Ref(line.name, line.value.axes | self.rows, Kind.REAL)

    # ------------------------------------------------------------------------------ backward

    def _backward(self, component: _Component) -> None:
        """The cotangent of the state, from the last row to the first, and its readings."""
        form, p = component.form, component.cotangent.ref
        lines: list[Equation] = []
        after, before = self._written_back(component)
        if after:
            lines.append(Equation(p.name, _sum([p, *after])))
        lines += self._of_terms(component, p)
        corrections = [
            mul(w, d) for (_, w), d in zip(form.corrections, component.d_corrected, strict=True)
        ]
        lines.append(Equation(p.name, _sum([mul(form.decay, p), *corrections, *before])))
        self.adjoints.stage(
            Recurrence(
                self.stage.over,
                (component.cotangent,),
                tuple(lines),
                reverse=not self.stage.reverse,
            )
        )

    def _written_back(self, component: _Component) -> tuple[list[Expr], list[Expr]]:
        """What readings after and before the update add to the cotangent of the state."""
        found: tuple[list[Expr], list[Expr]] = [], []
        for reading in component.readings:
            if (above := self._above(reading)) is not None:
                found[0 if reading.after else 1].append(mul(reading.query, above))
        return found

    def _above(self, reading: Reading) -> Expr | None:
        """The adjoint of a reading."""
        return self.adjoints.of(self.names[reading.ref.name].name)

    def _of_terms(self, component: _Component, p: Ref) -> Iterator[Equation]:
        """The readings of the cotangent for the terms u * r and k * v; equal factors share one."""
        form, state = component.form, component.form.state
        values = tuple(sorted(form.value_axes))
        columns: dict[Expr, list[Expr]] = {}
        for (u, _), r in zip(form.corrections, component.corrected, strict=True):
            columns.setdefault(u, []).append(r)
        for k, v in form.writes:
            columns.setdefault(k, []).append(v)
        across: dict[Expr, Ref] = {}
        for column, others in columns.items():
            trained = [v for v in others if self._is_trained(v)]
            if trained or any(column == u for u, _ in form.corrections):
                value = Reduce("sum", mul(column, p), (form.key_axis,))
                line = Equation(self.adjoints.unused(_hint(others, f"d_{state.name}_row")), value)
                across[column] = self._row(line)
                component.d_other += [(v, across[column]) for v in trained]
                yield line
            if self._is_trained(column) or self._decays(form):
                whole = mul(_sum(others), p)
                summed = Reduce("sum", whole, values) if values else whole
                line = Equation(
                    self.adjoints.unused(_hint([column], f"d_{state.name}_column")), summed
                )
                component.d_other.append((column, self._row(line)))
                yield line
        component.d_corrected += [across[u] for u, _ in form.corrections]

    def _is_trained(self, value: Expr) -> bool:
        return not names_in(value).isdisjoint(self.adjoints.active)

    def _decays(self, form: Matrix) -> bool:
        """Whether the decay has a gradient."""
        return self._is_trained(form.decay)

    def _forgets(self, form: Matrix) -> bool:
        """Whether the decay is a gate with a gradient, about a half in each row.

        Most of what a row reads is then what it wrote. In the gate's gradient that cancels with
        what the cotangent reads of it, but only if no product of narrow numbers has rounded one of
        both; what is left over is summed over all rows, beside a gradient that a few rows make.
        """
        match form.log_decay:
            case Call("logsigmoid"):
                return self._decays(form)
        return False

    # --------------------------------------------------------------------- the state, read again

    def _read(self, component: _Component) -> None:
        """The state once more, read along its other axis by the adjoints of its readings."""
        form = component.form
        own = replace(form.state, name=self.adjoints.unused(f"{form.state.name}_again"))
        lines: list[Equation] = []
        self.d_w: list[tuple[Expr, Ref]] = []
        lines += self._queries(component, own.ref, after=False)
        for (_, w), d in zip(form.corrections, component.d_corrected, strict=True):
            value = Reduce("sum", mul(d, own.ref), form.value_axes)
            lines.append(Equation(self.adjoints.unused(f"d_{form.state.name}_w"), value))
            self.d_w.append((w, self._row(lines[-1])))
        lines.append(Equation(own.name, self._next(component, own.ref, component.corrected)))
        lines += self._queries(component, own.ref, after=True)
        self.last = own.ref
        if len(lines) > 1 or (self._decays(form) and self._given_at_end(form) is not None):
            stage = self.stage
            self.adjoints.stage(Recurrence(stage.over, (own,), tuple(lines), reverse=stage.reverse))

    def _queries(self, component: _Component, state: Ref, after: bool) -> Iterator[Equation]:
        """What each query is multiplied with, from the state as it is after a row, or before.

        What a row sees of its own write is a term apart where a gate decays: see ``_forgets``.
        """
        form = component.form
        own = {form.key_axis, *form.value_axes}
        for reading in component.readings:
            above = self._above(reading)
            apart = self._forgets(form) and reading.axes == (form.key_axis,)
            if above is None or after != (reading.after and not apart):
                continue
            over = tuple(sorted((own & state.axes) - {*reading.axes}))

            def seen(value: Expr, above: Expr = above, over: tuple[str, ...] = over) -> Expr:
                return Reduce("sum", mul(above, value), over) if over else mul(above, value)

            value = seen(state)
            if reading.after and apart:
                value = self._next(component, state, component.corrected, seen)
            line = Equation(self.adjoints.unused(f"d_{form.state.name}_query"), value)
            component.d_query[reading.ref.name] = self._row(line)
            yield line

    # --------------------------------------------------------------------------- coefficients

    def _coefficients(self, component: _Component) -> None:
        """Everything that the coefficients of a component read gets its part."""
        form, adjoints = component.form, self.adjoints
        for reading in component.readings:
            if reading.ref.name in component.d_query:
                self._add(reading.query, component.d_query[reading.ref.name])
        for value, above in (*component.d_other, *self.d_w):
            self._add(value, above)
        if self._decays(form):
            assert form.log_decay is not None
            self._add(form.log_decay, self._of_decay(component))
        initial = form.state.initial
        whole = sum_to(component.cotangent.ref, component.cotangent.dims, initial.axes)
        adjoints.add(pullback(initial, whole, adjoints.active))

    def _add(self, value: Expr, above: Expr) -> None:
        above = sum_to(above, above.axes, value.axes)
        self.adjoints.add(pullback(value, above, self.adjoints.active))

    def _of_decay(self, component: _Component) -> Expr:
        """The adjoint of the decay's logarithm, summed over rows from the end; from the start where
        the state is 0 there, since products that made the last one have rounded each write."""
        form, over = component.form, self.stage.over
        assert form.log_decay is not None
        kept = (form.log_decay.axes | self.rows | form.state.dims) - {*form.value_axes}
        kept -= frozenset({form.key_axis}) - form.log_decay.axes
        here: Expr = ZERO
        later: Expr = ZERO
        for reading in component.readings:
            if reading.ref.name not in component.d_query:
                continue
            if reading.axes == (form.key_axis,):
                part = mul(reading.query, component.d_query[reading.ref.name])
            else:
                above = self._above(reading)
                assert above is not None
                part = mul(above, self.names[reading.ref.name])
            part = sum_to(part, part.axes, kept)
            here, later = (add(here, part), later) if reading.after else (here, add(later, part))
        for value, above in component.d_other:
            if form.key_axis in value.axes:
                part = mul(value, above)
                here = add(here, call("neg", sum_to(part, part.axes, kept)))
        for w, above in self.d_w:
            part = mul(w, above)
            later = add(later, sum_to(part, part.axes, kept))
        if later != ZERO:
            later = self.adjoints.named(f"d_{form.state.name}_later", later)
        change, end, reverse = add(here, later), self._given_at_end(form), self.stage.reverse
        from_start = end is None and form.state.name in self.given
        found: Expr = ZERO
        if change != ZERO:  # negative row by row, so that the sum is one kernel
            change = call("neg", change) if from_start else change
            rows = self.adjoints.named(f"d_{form.state.name}_decay", change)
            found = (
                Cumsum(rows, over, reverse, here != ZERO)
                if from_start
                else Cumsum(rows, over, not reverse, here == ZERO)
            )
        if later != ZERO and here != ZERO:  # a row's own part is not among what comes later
            found = add(found, call("neg", later))
        if end is not None:
            part = mul(self.last, end)
            found = add(found, sum_to(part, part.axes, kept))
        return found

    def _given_at_end(self, form: Matrix) -> Expr | None:
        """The adjoint of a state's last value, where sums over rows begin with it."""
        starts_at_0 = isinstance(form.state.initial, Literal) and form.state.initial.value == 0
        return None if starts_at_0 else self.given.get(form.state.name)


def _coefficients(component: _Component) -> list[Expr]:
    form = component.form
    pairs = (*form.corrections, *form.writes)
    queries = (reading.query for reading in component.readings)
    return [form.decay, *queries, *(value for pair in pairs for value in pair)]


def _hint(values: list[Expr], otherwise: str) -> str:
    """A name for an adjoint, by the input that it is the adjoint of, if it is one's."""
    names = [v.name for v in values if isinstance(v, Ref)]
    return f"d_{names[-1]}_part" if names else otherwise


def _sum(terms: list[Expr]) -> Expr:
    total = terms[0]
    for term in terms[1:]:
        total = call("add", total, term)
    return total


__all__ = ["matrix_adjoint"]
