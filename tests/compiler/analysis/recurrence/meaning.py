"""What steps and forms mean, by numpy in float64: arrays with named axes, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from mixc.ir.expression import Call, Cumsum, Expr, Index, Literal, Read, Reduce, Ref, Size, call
from mixc.ir.mixer import Equation, Line, Recurrence
from mixc.ir.recurrence_forms import Affine, Classified, Coupled, Dense, Form, Loop, Matrix

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Value:
    """An array with its axes in alphabetical order."""

    axes: tuple[str, ...]
    data: np.ndarray

    def along(self, axes: tuple[str, ...]) -> np.ndarray:
        """The array with these axes, of length 1 where it lacks one."""
        return self.data.reshape([self.size(a) for a in axes])

    def size(self, axis: str) -> int:
        return self.data.shape[self.axes.index(axis)] if axis in self.axes else 1

    def at(self, axis: str, row: int) -> Value:
        """One row."""
        if axis not in self.axes:
            return self
        kept = tuple(a for a in self.axes if a != axis)
        return Value(kept, np.take(self.data, row, self.axes.index(axis)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


_ERF = np.vectorize(math.erf)
_FUNCTIONS: Mapping[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": lambda a, b: np.power(np.asarray(a, float), b),
    "max": np.maximum,
    "min": np.minimum,
    "logaddexp": np.logaddexp,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "floordiv": np.floor_divide,
    "mod": np.mod,
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": _sigmoid,
    "logsigmoid": lambda x: -np.logaddexp(0, -x),
    "softplus": lambda x: np.logaddexp(0, x),
    "where": np.where,
    "erf": _ERF,
}


@dataclass
class Rows:
    """Values by name; those with an axis of ``at`` stand for their row."""

    sizes: Sizes
    values: dict[str, Value]
    at: dict[str, int] = field(default_factory=dict)
    lazy: dict[str, Callable[[], Value]] = field(default_factory=dict)

    def of(self, expr: Expr) -> Value:
        """The value of an expression in this row."""
        match expr:
            case Literal(value):
                return Value((), np.array(float(value)))
            case Size(dim):
                return Value((), np.array(float(self.sizes[dim])))
            case Index(dim) if dim in self.at:
                return Value((), np.array(self.at[dim]))
            case Index(dim):
                return Value((dim,), np.arange(self.sizes[dim]))
            case Ref(name):
                value = self.lazy[name]() if name in self.lazy else self.values[name]
                return reduce(lambda v, item: v.at(*item), self.at.items(), value)
            case Call(fn, args):
                parts = [self.of(a) for a in args]
                axes = tuple(sorted({axis for part in parts for axis in part.axes}))
                data = _FUNCTIONS[fn](*(part.along(axes) for part in parts))
                return self._whole(Value(axes, np.asarray(data)))
            case Reduce("sum" | "max", x, over, where, ()):
                if where is not None:
                    nothing = Literal(0 if expr.op == "sum" else -math.inf)
                    x = Call("where", (where, x, nothing))
                value = self.of(x)
                kept = tuple(a for a in value.axes if a not in over)
                places = tuple(value.axes.index(a) for a in over)
                fold = value.data.sum if expr.op == "sum" else value.data.max
                return Value(kept, fold(places))
            case Cumsum(x, over, False, True):
                value = self.of(x)
                running = np.cumsum(value.data, value.axes.index(over)) - value.data
                return Value(value.axes, running)
            case Read(x, at, fill):
                return self._read(self.of(x), at, fill)
        raise AssertionError(expr)

    def _whole(self, value: Value) -> Value:
        return Value(value.axes, np.broadcast_to(value.data, [self.sizes[a] for a in value.axes]))

    def _read(self, value: Value, at: tuple[tuple[str, Expr], ...], fill: float) -> Value:
        own = {dim: self.of(index) for dim, index in at if dim in value.axes}
        kept = [a for a in value.axes if a not in own]
        axes = tuple(sorted({*kept, *(a for index in own.values() for a in index.axes)}))
        places, inside = [], np.array(True)
        for axis in value.axes:
            index = own.get(axis) or Value((axis,), np.arange(self.sizes[axis]))
            place = np.asarray(index.along(axes), int)
            inside = inside & (place >= 0) & (place < self.sizes[axis])
            places.append(np.clip(place, 0, self.sizes[axis] - 1))
        picked = value.data[tuple(places)]
        return self._whole(Value(axes, np.where(inside, picked, fill)))

    def spread(self, value: Value, dims: frozenset[str]) -> Value:
        """The value with all of ``dims``."""
        assert set(value.axes) <= dims, (value.axes, dims)
        axes = tuple(sorted(dims))
        shape = [self.sizes[a] for a in axes]
        return Value(axes, np.broadcast_to(value.along(axes), shape).copy())


def by_rows(recurrence: Recurrence, inputs: Mapping[str, Value], sizes: Sizes) -> dict[str, Value]:
    """Rows of every own name, of each state before the row (``S.in``) and after it (``S.out``)."""
    rows = Rows(sizes, dict(inputs))
    dims = {s.name: s.dims for s in recurrence.states}
    for state in recurrence.states:
        rows.values[state.name] = rows.spread(rows.of(state.initial), state.dims)
    found: dict[str, list[Value]] = {}
    count = sizes[recurrence.over]
    for t in range(count - 1, -1, -1) if recurrence.reverse else range(count):
        rows.at = {recurrence.over: t}
        for name in dims:
            found.setdefault(f"{name}.in", []).append(rows.values[name])
        if recurrence.reset is not None:
            kept = rows.of(call("where", recurrence.reset, 0, 1))
            for name in dims:
                rows.values["?"], rows.values["!"] = kept, rows.values[name]
                now = call("mul", _ref("?", kept), _ref("!", rows.values[name]))
                rows.values[name] = rows.spread(rows.of(now), dims[name])
        _run(recurrence.step, rows, dims)
        for name in dims:
            found.setdefault(f"{name}.out", []).append(rows.values[name])
        for ref in recurrence.own:
            found.setdefault(ref.name, []).append(rows.values[ref.name])
    backwards = -1 if recurrence.reverse else 1
    return {name: _stacked(v[::backwards], recurrence.over) for name, v in found.items()}


def _ref(name: str, value: Value) -> Ref:
    from mixc.ir.expression import Kind

    return Ref(name, frozenset(value.axes), Kind.REAL)


def _run(step: tuple[Line, ...], rows: Rows, dims: Mapping[str, frozenset[str]]) -> None:
    for line in step:
        if isinstance(line, Equation):
            value = rows.of(line.value)
            rows.values[line.name] = (
                rows.spread(value, dims[line.name]) if line.name in dims else value
            )
            continue
        whole: dict[str, list[Value]] = {}
        for r in range(rows.sizes[line.over]):
            rows.at[line.over] = r
            _run(line.step, rows, dims)
            for inner in line.step:
                if isinstance(inner, Equation) and inner.name not in dims:
                    whole.setdefault(inner.name, []).append(rows.values[inner.name])
        del rows.at[line.over]
        rows.values |= {name: _stacked(values, line.over) for name, values in whole.items()}


def _stacked(values: list[Value], over: str) -> Value:
    axes = tuple(sorted((*values[0].axes, over)))
    return Value(axes, np.stack([v.data for v in values], axes.index(over)))


def by_forms(
    classified: Classified,
    recurrence: Recurrence,
    inputs: Mapping[str, Value],
    sizes: Sizes,
    loops: Mapping[str, Value],
) -> dict[str, Value]:
    """The same rows by the formulas of the forms; states of loops are taken from ``loops``."""
    rows = Rows(sizes, dict(inputs))
    now = {s.name: rows.spread(rows.of(s.initial), s.dims) for s in recurrence.states}
    found: dict[str, list[Value]] = {}
    for reading in classified.readings:
        point = f"{reading.state}.{'out' if reading.after else 'in'}"
        state = next(s for s in recurrence.states if s.name == reading.state)
        ref = Ref(point, state.dims, state.kind)
        read = Read(ref, reading.at) if reading.at else ref
        expr = Reduce("sum", call("mul", reading.query, read), reading.axes)
        rows.lazy[reading.ref.name] = lambda expr=expr: rows.of(expr)  # type: ignore[misc]
    count = sizes[recurrence.over]
    for t in range(count - 1, -1, -1) if recurrence.reverse else range(count):
        rows.at = {recurrence.over: t}
        for form in classified.components:
            states = [form.state] if isinstance(form, Matrix | Dense) else list(form.states)
            for state in states:
                rows.values[f"{state.name}.in"] = now[state.name]
            new = _new(form, rows, loops)
            for state, value in zip(states, new, strict=True):
                now[state.name] = rows.spread(value, state.dims)
                rows.values[f"{state.name}.out"] = now[state.name]
                found.setdefault(f"{state.name}.out", []).append(now[state.name])
        for name, value in classified.own:
            found.setdefault(name, []).append(rows.of(value))
    backwards = -1 if recurrence.reverse else 1
    return {name: _stacked(v[::backwards], recurrence.over) for name, v in found.items()}


def _new(form: Form, rows: Rows, loops: Mapping[str, Value]) -> list[Value]:
    match form:
        case Loop(states):
            over = next(iter(rows.at))
            return [loops[f"{s.name}.out"].at(over, rows.at[over]) for s in states]
        case Matrix():
            one = ((form.decay,),)
            corrections = tuple((u, w, form.state.name) for u, w in form.corrections)
            every = Coupled((form.state,), form.key_axis, one, (corrections,), (form.writes,))
            return _coupled(every, rows)
        case Coupled():
            return _coupled(form, rows)
        case Dense(state, axis, column, matrix, offset):
            before = Ref(f"{state.name}.in", state.dims, state.kind)
            column_ = Read(before, ((axis, Index(column)),))
            mixed = Reduce("sum", call("mul", matrix, column_), (column,))
            return [rows.of(mixed if offset is None else call("add", mixed, offset))]
        case Affine(states, plus, times, coefficients, offsets):
            values = []
            for row, offset in zip(coefficients, offsets, strict=True):
                parts: list[Expr] = [] if offset is None else [offset]
                for coefficient, state in zip(row, states, strict=True):
                    if coefficient is not None:
                        before = Ref(f"{state.name}.in", state.dims, state.kind)
                        parts.append(call(times, coefficient, before))
                zero = Literal(0 if plus == "add" else math.inf if plus == "min" else -math.inf)
                total = reduce(lambda a, b: call(plus, a, b), parts) if parts else zero
                values.append(rows.of(total))
            return values


def _coupled(form: Coupled, rows: Rows) -> list[Value]:
    before = {s.name: Ref(f"{s.name}.in", s.dims, s.kind) for s in form.states}
    values = []
    for decays, corrections, writes in zip(form.decay, form.corrections, form.writes, strict=True):
        parts: list[Expr] = [
            call("mul", d, before[s.name])
            for d, s in zip(decays, form.states, strict=True)
            if d is not None
        ]
        for u, w, name in corrections:
            parts.append(
                call("mul", u, Reduce("sum", call("mul", w, before[name]), (form.key_axis,)))
            )
        parts += [call("mul", k, v) for k, v in writes]
        values.append(rows.of(reduce(lambda a, b: call("add", a, b), parts, Literal(0))))
    return values
