"""The parallel form of a recurrence as torch code, compiled: what an expert would run instead.

Derived from what the analysis found of the step: matrix states by chunks (``chunk_form``),
elementwise affine ones by a doubling scan (``scan_form``). Layouts are made to measure before the
clock starts, time next to the features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from ...backends.reference.scope import Scope, shared_nodes
from ...backends.reference.values import Setting as Evaluation
from ...backends.reference.values import Value
from ...compiler.analysis.recurrence.classify import classify
from ...compiler.analysis.recurrence.flatten import flatten
from ...ir.binding import Number, param_values
from ...ir.errors import UnsupportedError
from ...ir.expression import Call, Expr, Index, Kind, Literal, Read, Ref, Size, call
from ...ir.host import evaluate_host
from ...ir.mixer import Map, Mixer, Recurrence, State
from ...ir.optional import expressions, without_inputs
from ...ir.recurrence_forms import Affine, Form, Matrix, Reading
from ...ir.reductions import NEUTRAL
from ...ir.rewriting import transform
from .chunk_form import Chunks, Factors
from .scan_form import OPERATIONS, scan

CHUNKS = (64, 32, 16)
# Half a chunk's decays, in exponents, that float32 has room for; a decay that leaves nothing.
_ROOM = 80.0
_NOTHING = -60.0
_ALIAS = " along "  # no name of a spec has a space


class ParallelForm:
    """The outputs of a mixer by the parallel forms of its recurrences.

    ``arranged`` are the inputs as the code wants them, one row of axes after another: the batch,
    then time, then features; factors of products are in ``products``. Raises
    UnsupportedError where a state has no such form.
    """

    def __init__(
        self,
        mixer: Mixer,
        sizes: Mapping[str, int],
        tensors: Mapping[str, Tensor],
        dtype: torch.dtype,
        params: Mapping[str, Number],
        chunk: int | None = None,
        products: torch.dtype | None = None,
    ) -> None:
        self.mixer = without_inputs(mixer, [i.name for i in mixer.inputs if i.name not in tensors])
        self.dtype, self.products = dtype, products or dtype
        self.chunk = chunk or CHUNKS[0]
        self.stages = {id(s): _Laid(s) for s in _recurrences(self.mixer)}
        self.forms = {key: classify(laid.stage) for key, laid in self.stages.items()}
        numbers = param_values(mixer, sizes, params)
        sizes = {**sizes, **self._flat_sizes(sizes, numbers)}
        self.sizes = {dim: sizes[dim] for dim in self._order(sizes)}
        device = next(iter(tensors.values())).device
        self.setting = Evaluation(self.sizes, numbers, torch.float32, device)
        self.names = [i.name for i in self.mixer.inputs]
        self.dims = {i.name: self.setting.ordered(i.dims) for i in self.mixer.inputs}
        self.arranged = [
            tensors[i.name]
            .reshape([sizes[d] for d in i.dims])
            .permute([i.dims.index(d) for d in self.dims[i.name]])
            .contiguous()
            for i in self.mixer.inputs
        ]
        self.decays: list[Tensor] | None = None
        self.split = True
        if chunk is None:
            self._fit()

    def _fit(self) -> None:
        """Take the largest chunk in which decays of single channels stay in the range of floats."""
        self.chunk, self.decays = CHUNKS[-1], []
        self.outputs(*self.arranged)
        decays, self.decays = self.decays, None
        fit = [c for c in CHUNKS if all(_steepest(d, c // 2) > -_ROOM for d in decays)]
        self.split = bool(fit)
        self.chunk = fit[0] if fit else CHUNKS[-1]

    @property
    def what(self) -> str:
        """How it computes, in a few words."""
        forms = [form for c in self.forms.values() for form in c.components]
        by_chunks = (
            f"chunks of {self.chunk}, batched"
            if any(isinstance(form, Matrix) for form in forms)
            else ""
        )
        by_scan = "doubling scan" if any(isinstance(form, Affine) for form in forms) else ""
        return " and ".join(filter(None, (by_scan, by_chunks)))

    def outputs(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The mixer's outputs, each with its axes in the order of ``sizes``."""
        scope = Scope(
            self.setting,
            lets={e.name: e for e in self.mixer.lets},
            shared=shared_nodes(expressions(self.mixer)),
        )
        for declared, tensor in zip(self.mixer.inputs, inputs, strict=True):
            real = declared.kind is Kind.REAL
            made = Value(tensor.float() if real else tensor, self.dims[declared.name])
            scope.names[declared.name] = self.setting.of_kind(made, declared.kind)
        for table in self.mixer.tables:
            values = torch.tensor(table.values, device=self.setting.device).reshape(table.shape)
            made = self.setting.of_kind(Value(values, table.dims), table.kind)
            scope.names[table.name] = self.setting.reordered(made)
        for stage in self.mixer.stages:
            if isinstance(stage, Map):
                for equation in stage.equations:
                    scope.names[equation.name] = scope.value(equation.value)
            else:
                assert isinstance(stage, Recurrence)
                _Stage(self, self.stages[id(stage)], scope).run()
        return tuple(self._output(scope, o.name, o.dims) for o in self.mixer.outputs)

    def results(self, outputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The outputs by name, in the layouts of the spec."""
        made = {}
        for declared, tensor in zip(self.mixer.outputs, outputs, strict=True):
            dims = self.setting.ordered(declared.dims)
            shape = [prod(self.sizes[d] for d in axis) for axis in declared.layout]
            made[declared.name] = tensor.permute([dims.index(d) for d in declared.dims]).reshape(
                shape
            )
        return made

    def _order(self, sizes: Mapping[str, int]) -> list[str]:
        """Batch axes, then time, then the axes of states that are not batch."""
        times = {laid.stage.over for laid in self.stages.values()}
        if len(times) != 1:
            raise UnsupportedError("it has no recurrence, or several directions of time")
        inner: set[str] = set()
        for classified in self.forms.values():
            for form in classified.components:
                if isinstance(form, Matrix):
                    inner |= {form.key_axis, *form.value_axes}
                elif not isinstance(form, Affine):
                    raise UnsupportedError(_no_form(form))
                else:
                    inner |= {axis for state in form.states for axis in state.listed}
        return sorted(sizes, key=lambda dim: (dim in inner, dim in times or dim in inner))

    def _flat_sizes(
        self, sizes: Mapping[str, int], numbers: Mapping[str, Number]
    ) -> dict[str, int]:
        flats = [laid.flat for laid in self.stages.values() if laid.flat is not None]
        return {flat.axis: int(evaluate_host(flat.size, sizes, numbers)) for flat in flats}

    def _output(self, scope: Scope, name: str, dims: Sequence[str]) -> Tensor:
        value = self.setting.expanded(scope.named(name), dims)
        return value.tensor.to(self.dtype)


def _recurrences(mixer: Mixer) -> list[Recurrence]:
    for stage in mixer.stages:
        if not isinstance(stage, Recurrence | Map):
            raise UnsupportedError("it has a stage that is no recurrence")
    return [stage for stage in mixer.stages if isinstance(stage, Recurrence)]


def _no_form(form: Form) -> str:
    return f"{type(form).__name__.lower()} states have no parallel form here"


class _Laid:
    """A recurrence; one with rounds inside is laid out in time, where that can be."""

    def __init__(self, given: Recurrence) -> None:
        self.given, self.flat = given, flatten(given)
        self.stage = given if self.flat is None else self.flat.recurrence


class _Stage:
    """One recurrence: its components in order, then its rows."""

    def __init__(self, whole: ParallelForm, laid: _Laid, scope: Scope) -> None:
        self.whole, self.laid, self.stage, self.scope = whole, laid, laid.stage, scope
        self.setting, self.over = whole.setting, laid.stage.over
        self.classified = whole.forms[id(laid.given)]

    def run(self) -> None:
        """Put the stage's names into the scope, and its last states."""
        last: dict[str, Value] = {}
        for form in self.classified.components:
            match form:
                case Matrix():
                    last |= self._matrix(form)
                case Affine():
                    last |= self._affine(form)
                case _:
                    raise UnsupportedError(_no_form(form))
        for name, value in self.classified.own:
            self.scope.names[name] = self.value(value)
        if self.laid.flat is not None:
            for name, ref, place in self.laid.flat.rows:
                row = Read(ref, ((self.over, place),))
                self.scope.names[name] = self.scope.value(row)
        self.scope.names.update(last)

    def value(self, expr: Expr) -> Value:
        """An expression's value; groups of one head each are read as the heads."""
        return self.scope.value(transform(expr, self._ungrouped))

    def _ungrouped(self, node: Expr) -> Expr | None:
        if not (isinstance(node, Read) and isinstance(node.x, Ref)):
            return None
        names = {dim: self._same(dim, index) for dim, index in node.at}
        if None in names.values():
            return None
        value = self.scope.named(node.x.name)
        name = f"{node.x.name}{_ALIAS}{'.'.join(map(str, names.values()))}"
        dims = tuple(names.get(dim) or dim for dim in value.dims)
        self.scope.names[name] = self.setting.reordered(Value(value.tensor, dims))
        return Ref(name, frozenset(dims), node.kind)

    def _same(self, dim: str, index: Expr) -> str | None:
        """The dim whose index this is, where groups have one member each."""
        match index:
            case Call("floordiv", (Index(large), Call("floordiv", (Size(whole), Size(part))))):
                sizes = self.setting.sizes
                if whole == large and part == dim and sizes[large] == sizes[dim]:
                    return large
        return None

    # Matrix states

    def _matrix(self, form: Matrix) -> dict[str, Value]:
        if len(form.corrections) > 1:
            raise UnsupportedError("several corrections per row")
        axis, values = (form.key_axis,), form.value_axes
        batch = self._batch(form.state.dims, form)
        factors = Factors(
            self._log_decay(form, batch),
            None
            if not form.corrections
            else tuple(self._rows(e, batch, axis) for e in form.corrections[0]),  # type: ignore[arg-type]
            tuple(
                (self._rows(k, batch, axis), self._rows(v, batch, values)) for k, v in form.writes
            ),
            self._laid(self.value(form.state.initial), batch, axis, values),
            together=len(form.writes) == 1
            and bool(form.corrections)
            and form.writes[0][0] == form.corrections[0][0],
        )
        length = self.setting.sizes[self.over]
        chunks = Chunks(factors, length, self.whole.chunk, self.whole.products, self.whole.split)
        for reading in self.classified.readings:
            if reading.state == form.state.name:
                self._read(reading, chunks, form, batch)
        dims = (*batch, *axis, *values)
        shape = [self.setting.sizes[d] for d in dims]
        state = Value(chunks.last.reshape(shape), dims)
        return {form.state.name: self.setting.reordered(state)}

    def _batch(self, dims: frozenset[str], form: Matrix) -> tuple[str, ...]:
        return self.setting.ordered(dims - {form.key_axis, *form.value_axes, self.over})

    def _read(self, reading: Reading, chunks: Chunks, form: Matrix, batch: tuple[str, ...]) -> None:
        along = reading.axes == (form.key_axis,)
        if not along and reading.axes != form.value_axes:
            raise UnsupportedError("a state is read along some of the axes of its values")
        names = {dim: self._same(dim, index) for dim, index in reading.at}
        if None in names.values():
            raise UnsupportedError("several queries share a state")
        batch = tuple(names.get(dim) or dim for dim in batch)
        if self._batch(reading.ref.dims, form) != self.setting.ordered(batch):
            raise UnsupportedError("several queries share a state")
        query = self._rows(reading.query, batch, reading.axes)
        read = chunks.read if along else chunks.read_values
        rows = self._turned(read(query, reading.after))
        dims = (*batch, self.over, *(form.value_axes if along else (form.key_axis,)))
        value = Value(rows.reshape([self.setting.sizes[d] for d in dims]), dims)
        self.scope.names[reading.ref.name] = self.setting.reordered(value)

    def _log_decay(self, form: Matrix, batch: tuple[str, ...]) -> Tensor | None:
        log = form.log_decay or call("log", form.decay)
        if log == Literal(0) or form.decay == Literal(1):
            return None
        value = self.value(log)
        own = (form.key_axis,) if form.key_axis in value.dims else ()
        time = (self.over,) if self.over in value.dims else ()
        tensor = self.setting.expanded(value, (*batch, *time, *own))
        dims = (*batch, *time, *own)
        laid = tensor.tensor.permute([tensor.dims.index(d) for d in dims])
        sizes = self.setting.sizes
        rows, width = prod(sizes[d] for d in time), prod(sizes[d] for d in own)
        log_decay = laid.reshape(prod(sizes[d] for d in batch), rows, width).float()
        log_decay = log_decay.clamp(min=_NOTHING)  # no infinities, which have no differences
        if self.whole.decays is not None and own:
            self.whole.decays.append(log_decay)
        return self._turned(log_decay)

    def _rows(self, expr: Expr, batch: tuple[str, ...], last: tuple[str, ...]) -> Tensor:
        """A value of every row as [X, T, features]."""
        return self._turned(self._laid(self.value(expr), batch, (self.over,), last))

    def _turned(self, rows: Tensor, axis: int = 1) -> Tensor:
        """Rows in the order in which they are visited, or back from it."""
        return rows.flip(axis) if self.stage.reverse and rows.shape[axis] > 1 else rows

    def _laid(self, value: Value, *groups: tuple[str, ...]) -> Tensor:
        """A value with each group of dims as one axis."""
        dims = tuple(d for group in groups for d in group)
        value = self.setting.expanded(self.setting.of_kind(value, Kind.REAL), dims)
        tensor = value.tensor.permute([value.dims.index(d) for d in dims])
        return tensor.reshape([prod(self.setting.sizes[d] for d in g) for g in groups]).float()

    # Elementwise states

    def _affine(self, form: Affine) -> dict[str, Value]:
        dims = self.setting.ordered(
            {self.over}.union(*(state.dims for state in form.states), *self._extra(form))
        )
        axis = dims.index(self.over)
        coefficients = [[self._along(c, dims, axis) for c in row] for row in form.coefficients]
        shape = [self.setting.sizes[d] for d in dims]
        offsets = [
            torch.full(shape, NEUTRAL[form.plus], device=self.setting.device)
            if offset is None
            else self._turned(self.setting.expanded(self.value(offset), dims).tensor.float(), axis)
            for offset in form.offsets
        ]
        starts = [self._start(state, dims, axis) for state in form.states]
        plus, times = OPERATIONS[form.plus], OPERATIONS[form.times]
        found = scan(coefficients, offsets, starts, axis, plus, times)
        last = {}
        for state, rows, start in zip(form.states, found, starts, strict=True):
            start = start.expand([1 if d == self.over else self.setting.sizes[d] for d in dims])
            before = torch.cat([start, rows.narrow(axis, 0, rows.shape[axis] - 1)], axis)
            self.scope.names[f"{state.name}.in"] = Value(self._turned(before, axis), dims)
            self.scope.names[f"{state.name}.out"] = Value(self._turned(rows, axis), dims)
            kept = tuple(d for d in dims if d != self.over)
            last[state.name] = Value(rows.select(axis, -1), kept)
        return last

    def _extra(self, form: Affine) -> list[frozenset[str]]:
        return [offset.axes for offset in form.offsets if offset is not None]

    def _along(self, expr: Expr | None, dims: tuple[str, ...], axis: int) -> Tensor | None:
        """A coefficient that broadcasts against the rows."""
        if expr is None:
            return None
        value = self.setting.of_kind(self.value(expr), Kind.REAL)
        (tensor,) = self.setting.aligned([value], dims)
        return self._turned(tensor.float(), axis)

    def _start(self, state: State, dims: tuple[str, ...], axis: int) -> Tensor:
        value = self.setting.of_kind(self.value(state.initial), Kind.REAL)
        (tensor,) = self.setting.aligned([value], dims)
        shape = [1 if n == axis else self.setting.sizes[d] for n, d in enumerate(dims)]
        return tensor.float().expand(shape)


def _steepest(log_decay: Tensor, rows: int) -> float:
    """The lowest sum of ``rows`` neighbouring rows of [X, T, K]."""
    if log_decay.shape[1] == 1:
        return rows * float(log_decay.min()) if log_decay.numel() else 0.0
    total = functional.pad(log_decay.cumsum(1), (0, 0, 1, 0))
    sums = total[:, rows:] - total[:, :-rows] if total.shape[1] > rows else total[:, -1:]
    return float(sums.min()) if sums.numel() else 0.0


def compiled(form: ParallelForm) -> Callable[..., tuple[Tensor, ...]]:
    """The form under torch.compile."""
    made: Callable[..., tuple[Tensor, ...]] = torch.compile(traced(form), dynamic=False)
    return made


def traced(form: ParallelForm) -> Callable[..., tuple[Tensor, ...]]:
    """The form's torch operations as one graph."""
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(form.outputs, _error_on_data_dependent_ops=False)(*form.arranged)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph
