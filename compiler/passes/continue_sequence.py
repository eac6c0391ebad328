"""A mixer over a stretch of its sequence: what went before comes in, what comes after goes out.

    state {S}, initial {S: S0}   -->  initial {S: S_before}, and S after the stretch is an output
    u[T=t - l]                   -->  where(t - l >= 0, u[T=t - l], u_rows_before[...]), and the
                                      last rows of u are an output
    cumsum(x, T)                 -->  x_sum_before + cumsum(x, T), and the sum so far an output
    t                            -->  t + rows_before

So any split of a sequence into stretches gives what one pass gives. The result is a mixer like any
other, so that every backend runs it; no stretch need be longer than nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...ir.expression import (
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
    Solve,
    call,
    rebuild,
    walk,
)
from ...ir.mixer import (
    Attention,
    Equation,
    Input,
    Layout,
    Map,
    Mixer,
    Output,
    Recurrence,
    Stage,
    State,
)
from ..analysis.linear import expression, linear
from ..analysis.row_reach import rows_back
from .sequence_axis import SequenceAxis, last_values, sequence_axis
from .stages import changed, values

_DTYPES = {Kind.REAL: "float32", Kind.INT: "int32", Kind.BOOL: None}


@dataclass(frozen=True, slots=True)
class Carried:
    """A value that is handed from stretch to stretch.

    ``name``: what the caller sees (S, ``u_rows`` or ``g_sum``); ``before`` is the input of
    ``Continued.more``, ``after`` the output of both mixers.
    """

    name: str
    before: str
    after: str
    layout: Layout
    kind: Kind


@dataclass(frozen=True)
class Continued:
    """Two mixers over a stretch: ``start``, the first one, and ``more``, any later one.

    ``rows_before``: the input of ``more`` that takes how many rows went before, where that matters.
    ``only_first``: the inputs that only ``start`` takes (those of ``initial``).
    """

    start: Mixer
    more: Mixer
    carried: tuple[Carried, ...]
    axis: SequenceAxis
    rows_before: str | None
    only_first: tuple[str, ...]


def continue_sequence(mixer: Mixer) -> Continued:
    """The mixer for a first stretch of a sequence, and for every later one.

    Raises:
        UnsupportedError: a term that needs rows which a stretch does not have: all of them, later
            ones, or earlier ones without a bound.
    """
    axis = sequence_axis(mixer, "stepped")
    change = _Continue(mixer, axis, _names(mixer))
    change.whole = last_values(mixer, axis.has)
    lets = tuple(change.equation(let) for let in mixer.lets)
    stages = tuple(change.stage(stage) for stage in mixer.stages)
    return change.continued(lets, stages)


@dataclass
class _Rows:
    """The last rows of a value along ``dim``, with ``fill`` before the first row of all."""

    carried: Carried
    value: Expr  # the value in a stretch
    first: Expr  # the value in the first stretch
    dim: str
    back: str  # the axis that counts the rows
    fill: float
    lengths: list[Expr]

    @property
    def before(self) -> Ref:
        axes = (self.value.axes - {self.dim}) | {self.back}
        return Ref(self.carried.before, axes, self.value.kind)


@dataclass
class _Sum:
    """The sum of a value along ``dim`` so far."""

    carried: Carried
    value: Expr
    first: Expr
    dim: str

    @property
    def before(self) -> Ref:
        return Ref(self.carried.before, self.value.axes - {self.dim}, _sum_kind(self.value))


@dataclass
class _Continue:
    """The rewriting of one mixer."""

    mixer: Mixer
    axis: SequenceAxis
    taken: set[str]
    whole: frozenset[str] = frozenset()
    what: str = ""  # the equation that is being rewritten
    own: frozenset[str] = frozenset()  # names that a step makes, if in one
    states: list[tuple[State, Carried]] = field(default_factory=list)
    rows: dict[tuple[Expr, str, float], _Rows] = field(default_factory=dict)
    sums: dict[tuple[Expr, str], _Sum] = field(default_factory=dict)
    counted: str | None = None
    done: dict[int, Expr] = field(default_factory=dict)

    # -------------------------------------------------------------------------- stages

    def equation(self, equation: Equation) -> Equation:
        self.what = equation.name
        self._check_whole(equation.value, equation.value.axes)
        return replace(equation, value=self(equation.value))

    def stage(self, stage: Stage) -> Stage:
        match stage:
            case Map(equations):
                return replace(stage, equations=tuple(self.equation(e) for e in equations))
            case Attention():
                return self._attention(stage)
            case Recurrence() if self.axis.has(stage.over):
                return self._recurrence(stage)
            case Recurrence():
                self._check_rounds(stage)
                return changed(stage, self)

    def _attention(self, stage: Attention) -> Stage:
        if self.axis.has(stage.over):
            raise self.axis.error(f"attention over {stage.over} needs every key", stage.score)
        reached = stage.queries.union(*(o.value.axes for o in stage.outputs))
        for self.what, value in values(stage):
            self._check_whole(value, reached)
        return changed(stage, self)

    def _check_rounds(self, stage: Recurrence) -> None:
        """A recurrence along another axis is a row's own."""
        reached = frozenset[str]().union(*(state.dims for state in stage.states))
        reached = reached.union(*(value.axes for _, value in values(stage)))
        for self.what, value in values(stage):
            self._check_whole(value, reached)

    def _recurrence(self, stage: Recurrence) -> Stage:
        if stage.reverse:
            raise self.axis.error(
                "a recurrence that runs backward begins with the last row", Index(stage.over)
            )
        states = []
        for state in stage.states:
            if self.axis.positions(state.dims):
                raise self.axis.error("a state has the sequence's axis", state.ref)
            self._check_whole(state.initial, frozenset({stage.over}))
            carried = self._state(state)
            states.append(replace(state, initial=Ref(carried.before, state.dims, state.kind)))
        own = {ref.name for ref in stage.own} | {state.name for state in stage.states}
        for self.what, value in values(replace(stage, states=())):
            self._check_whole(value, frozenset({stage.over}), own)
        self.own = frozenset(own)
        stepped = changed(replace(stage, states=()), self)
        self.own = frozenset()
        assert isinstance(stepped, Recurrence)
        return replace(stepped, states=tuple(states))

    def _state(self, state: State) -> Carried:
        declared = next((o for o in self.mixer.outputs if o.name == state.name), None)
        layout = self._layout(state) if declared is None else declared.layout
        before = self._free(f"{state.name}_before")
        carried = Carried(state.name, before, state.name, layout, state.kind)
        self.states.append((state, carried))
        return carried

    def _layout(self, state: State) -> Layout:
        """What flows in, in the order of the inputs, then what the spec lists."""
        flowing = state.dims - set(state.listed)
        return tuple((dim,) for dim in (*self._ordered(flowing), *state.listed))

    def _ordered(self, dims: frozenset[str]) -> tuple[str, ...]:
        met = dict.fromkeys(dim for i in self.mixer.inputs for dim in i.dims if dim in dims)
        return (*met, *sorted(dims - set(met)))

    def _check_whole(
        self, value: Expr, reached: frozenset[str], own: set[str] | frozenset[str] = frozenset()
    ) -> None:
        """Refuse rows that depend on a state after the last row of all."""
        if self.axis.positions(reached):
            for node in walk(value):
                if isinstance(node, Ref) and node.name in self.whole and node.name not in own:
                    raise self.axis.error(f"{self.what} needs a state after the last row", node)

    # --------------------------------------------------------------------- expressions

    def __call__(self, expr: Expr) -> Expr:
        if id(expr) not in self.done:
            self.done[id(expr)] = self._rewritten(expr)
        return self.done[id(expr)]

    def _rewritten(self, expr: Expr) -> Expr:
        if len(self.axis.positions(expr.axes)) > 1:
            raise self.axis.error("this pairs rows of the sequence with each other", expr)
        match expr:
            case Index(dim) if self.axis.has(dim):
                return call("add", expr, self._rows_before())
            case Size(dim) if self.axis.depends(dim):
                raise self.axis.error("this needs the length of the whole sequence", expr)
            case Scalar(name):
                self._check_param(expr, name)
                return expr
            case Reduce(_, _, over, _, group):
                gone = [d for d in (*over, *(dim for dim, _ in group)) if self.axis.depends(d)]
                if gone:
                    raise self.axis.error(f"a reduction over {gone[0]} needs every row", expr)
            case Solve(_, _, left, right) if self.axis.depends(left) or self.axis.depends(right):
                raise self.axis.error("a system over the sequence needs every row", expr)
            case Cumsum(_, over) if self.axis.has(over):
                return self._sum(expr)
            case Read():
                return self._read(expr)
            case _:
                pass
        if any(self.axis.is_derived(dim) for dim in expr.axes):
            raise self.axis.error("its axis follows from the length of the sequence", expr)
        return rebuild(expr, self)

    def _check_param(self, expr: Expr, name: str) -> None:
        for node in walk(self.mixer.param(name).value):
            if isinstance(node, Size) and self.axis.depends(node.dim):
                raise self.axis.error(
                    f"the param {name} depends on the length of the whole sequence", expr
                )
            if isinstance(node, Scalar):
                self._check_param(expr, node.name)

    def _rows_before(self) -> Expr:
        """How many rows went before the stretch."""
        if self.counted is None:
            self.counted = self._free(f"{self.axis.root.lower()}_before")
        return Ref(self.counted, frozenset(), Kind.INT)

    def _sum(self, cumsum: Cumsum) -> Expr:
        if cumsum.reverse:
            raise self.axis.error("a running sum from the end needs every row", cumsum)
        self._check_own(cumsum.x, cumsum)
        inner = self(cumsum.x)
        key = (cumsum.x, cumsum.over)
        if key not in self.sums:
            kept = self._ordered(inner.axes - {cumsum.over})
            layout = tuple((dim,) for dim in kept)
            carried = self._carried(cumsum.x, "sum", layout, _sum_kind(inner))
            self.sums[key] = _Sum(carried, inner, cumsum.x, cumsum.over)
        return call("add", self.sums[key].before, replace(cumsum, x=inner))

    def _read(self, read: Read) -> Expr:
        along = [(dim, index) for dim, index in read.at if self.axis.has(dim)]
        rest = tuple((dim, self(index)) for dim, index in read.at if not self.axis.has(dim))
        if not along:
            return Read(self(read.x), rest, read.fill, span=read.span)
        ((dim, index),) = along  # two of them would be two positions in x
        if isinstance(index, Index) and self.axis.has(index.dim):
            return Read(self(read.x), (*rest, (dim, index)), read.fill, span=read.span)
        self._check_own(read.x, read)
        length = rows_back(self.mixer, index, self.axis.has)
        if length is None:
            raise self.axis.error(
                "this reads rows other than a bounded number of earlier ones", read
            )
        rows = self._last_rows(read, dim, length)
        place = expression(linear(call("sub", self(index), self._rows_before())))
        here = Read(rows.value, (*rest, (dim, place)), read.fill, span=read.span)
        behind = expression(linear(call("add", place, Size(rows.back))))
        earlier = Read(rows.before, (*rest, (rows.back, behind)), read.fill, span=read.span)
        return call("where", call("ge", place, 0), here, earlier, span=read.span)

    def _last_rows(self, read: Read, dim: str, length: Expr) -> _Rows:
        key = (read.x, dim, read.fill)
        if key not in self.rows:
            inner = self(read.x)
            back = self._free_dim("Back")
            layout = tuple((back,) if d == dim else (d,) for d in self._ordered(inner.axes))
            carried = self._carried(read.x, "rows", layout, inner.kind)
            self.rows[key] = _Rows(carried, inner, read.x, dim, back, read.fill, [])
        if length not in self.rows[key].lengths:
            self.rows[key].lengths.append(length)
        return self.rows[key]

    def _check_own(self, x: Expr, term: Expr) -> None:
        """A step's own names have no rows but the one that is being made."""
        for node in walk(x):
            if isinstance(node, Ref) and node.name in self.own:
                raise self.axis.error(f"{node.name} is made row by row", term)

    def _carried(self, x: Expr, what: str, layout: Layout, kind: Kind) -> Carried:
        stem = x.name if isinstance(x, Ref) else self.what
        name = self._free(f"{stem}_{what}")
        before, after = self._free(f"{name}_before"), self._free(f"{name}_after")
        return Carried(name, before, after, layout, kind)

    def _free(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def _free_dim(self, stem: str) -> str:
        name, count = stem, 1
        while name in self.taken or name.lower() in self.taken:
            count += 1
            name = f"{stem}{count}"
        self.taken |= {name, name.lower()}
        return name

    # ------------------------------------------------------------------------- results

    def continued(self, lets: tuple[Equation, ...], stages: tuple[Stage, ...]) -> Continued:
        carried = [made for _, made in self.states]
        carried += [rows.carried for rows in self.rows.values()]
        carried += [running.carried for running in self.sums.values()]
        sizes = tuple((rows.back, _largest(rows.lengths)) for rows in self.rows.values())
        with_sizes = replace(self.mixer, sizes=(*self.mixer.sizes, *sizes))
        start = _with_outputs(with_sizes, carried, self._after_first())
        more = replace(with_sizes, lets=lets, stages=stages)
        counts = () if self.counted is None or not self._is_counted(more) else (self.counted,)
        more = replace(
            _with_outputs(more, carried, self._after()),
            inputs=(
                *self.mixer.inputs,
                *(Input(c.before, c.layout, c.kind, _DTYPES[c.kind]) for c in carried),
                *(Input(name, (), Kind.INT, "int32", grad=False) for name in counts),
            ),
        )
        more = _without_unread(more)
        read = {node.name for v in _all_values(more) for node in walk(v) if isinstance(node, Ref)}
        was = {
            node.name for v in _all_values(self.mixer) for node in walk(v) if isinstance(node, Ref)
        }
        only = tuple(i.name for i in self.mixer.inputs if i.name in was and i.name not in read)
        more = replace(more, inputs=tuple(i for i in more.inputs if i.name not in only))
        return Continued(start, more, tuple(carried), self.axis, next(iter(counts), None), only)

    def _is_counted(self, mixer: Mixer) -> bool:
        return any(
            isinstance(node, Ref) and node.name == self.counted
            for value in _all_values(mixer)
            for node in walk(value)
        )

    def _after_first(self) -> tuple[Equation, ...]:
        """What is handed over after the first stretch, in the spec's own terms."""
        made = []
        for rows in self.rows.values():
            place = call("sub", call("add", Index(rows.back), Size(rows.dim)), Size(rows.back))
            last = Read(rows.first, ((rows.dim, place),), rows.fill)
            made.append(Equation(rows.carried.after, last))
        for running in self.sums.values():
            total = Reduce("sum", running.first, (running.dim,))
            made.append(Equation(running.carried.after, total))
        return tuple(made)

    def _after(self) -> tuple[Equation, ...]:
        """What is handed over after a later stretch."""
        made = []
        for rows in self.rows.values():
            behind = call("add", Index(rows.back), Size(rows.dim))
            place = call("sub", behind, Size(rows.back))
            last = Read(rows.value, ((rows.dim, place),), rows.fill)
            kept = Read(rows.before, ((rows.back, behind),), rows.fill)
            value = call("where", call("ge", place, 0), last, kept)
            made.append(Equation(rows.carried.after, value))
        for running in self.sums.values():
            total = Reduce("sum", running.value, (running.dim,))
            made.append(Equation(running.carried.after, call("add", running.before, total)))
        return tuple(made)


def _with_outputs(mixer: Mixer, carried: list[Carried], after: tuple[Equation, ...]) -> Mixer:
    """The mixer with what is handed over among its outputs, states in float32."""
    handed = {c.after: Output(c.after, c.layout, c.kind, dtype=_DTYPES[c.kind]) for c in carried}
    kept = tuple(handed.pop(o.name, o) for o in mixer.outputs)
    stages = (*mixer.stages, Map(after)) if after else mixer.stages
    return replace(mixer, stages=stages, outputs=(*kept, *handed.values()))


def _all_values(mixer: Mixer) -> list[Expr]:
    found = [let.value for let in mixer.lets]
    return [*found, *(value for stage in mixer.stages for _, value in values(stage))]


def _without_unread(mixer: Mixer) -> Mixer:
    """Without the lets and stages that only ``initial`` read."""
    made: dict[str, list[Expr]] = {let.name: [let.value] for let in mixer.lets}
    for stage in mixer.stages:
        made |= {name: [value for _, value in values(stage)] for name in _results(stage)}
    pending, read = [output.name for output in mixer.outputs], set[str]()
    while pending:
        name = pending.pop()
        if name not in read:
            read.add(name)
            terms = (node for value in made.get(name, ()) for node in walk(value))
            pending += [node.name for node in terms if isinstance(node, Ref)]
    return replace(
        mixer,
        lets=tuple(let for let in mixer.lets if let.name in read),
        stages=tuple(stage for stage in mixer.stages if not read.isdisjoint(_results(stage))),
    )


def _results(stage: Stage) -> list[str]:
    return [made.name for made in (stage.equations if isinstance(stage, Map) else stage.results)]


def _largest(lengths: list[Expr]) -> Expr:
    if all(isinstance(length, Literal) for length in lengths):
        return Literal(max(int(length.value) for length in lengths if isinstance(length, Literal)))
    largest = lengths[0]
    for length in lengths[1:]:
        largest = call("max", largest, length)
    return largest


def _sum_kind(value: Expr) -> Kind:
    return max(value.kind, Kind.INT)


def _names(mixer: Mixer) -> set[str]:
    names = {i.name for i in mixer.inputs} | {p.name for p in mixer.params}
    names |= {t.name for t in mixer.tables} | {let.name for let in mixer.lets}
    for stage in mixer.stages:
        names |= {name for name, _ in values(stage)}
        if not isinstance(stage, Map):
            names |= {ref.name for ref in stage.results}
    dims = {dim for i in mixer.inputs for dim in i.dims} | {dim for dim, _ in mixer.sizes}
    dims |= {dim for pair in mixer.sequences for dim in pair}
    return names | dims | {dim.lower() for dim in dims} | {"score", "total", "scale", "cu_seqlens"}


__all__ = ["Carried", "Continued", "continue_sequence"]
