"""What is handed from one segment of a sequence to the next, and the mixers of both."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from ....ir.expression import Expr, Index, Kind, Literal, Read, Reduce, Ref, Size, call
from ....ir.mixer import Equation, Input, Layout, Map, Mixer, Output, Stage
from ....ir.names import names_in
from ....ir.rewriting import walk
from ....ir.stages import names_taken, values
from .parts import in_parts
from .sequence_axis import SequenceAxis

_DTYPES = {Kind.REAL: "float32", Kind.INT: "int32", Kind.BOOL: None}


@dataclass(frozen=True, slots=True)
class Carried:
    """A value that is handed from segment to segment.

    ``name``: what the caller sees (S, ``u_rows`` or ``g_sum``); ``before`` is the input of
    ``Continued.more``, ``after`` the output of both mixers.
    """

    name: str
    before: str
    after: str
    layout: Layout
    kind: Kind


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows of keys, of which every segment adds its own to those before.

    ``name``: what the caller sees (k, ``c_keys``). ``rows``: the segment's own, an input of the
    mixer or what ``first`` (in the first segment) and ``later`` compute. ``seen``: the input that
    takes all of them, with their axis at ``place``.
    """

    name: str
    rows: str
    seen: Input
    place: int
    layout: Layout
    first: Equation | None = None
    later: Equation | None = None

    @property
    def before(self) -> str:
        """The name that expressions of later segments read."""
        return self.seen.name


@dataclass(frozen=True)
class Continued:
    """Two mixers over a segment: ``start``, the first one, and ``more``, any later one.

    ``rows_before``: the input of ``more`` that takes how many rows went before, where that matters.
    ``only_first``: the inputs that only ``start`` takes (those of ``initial``). ``parts`` are
    ``more`` in pieces to run one after another: rows that one computes and ``keys`` keep are read,
    with those before them, by the next. A part gives what later ones read, by name.
    """

    start: Mixer
    more: Mixer
    carried: tuple[Carried, ...]
    axis: SequenceAxis
    rows_before: str | None
    only_first: tuple[str, ...]
    keys: tuple[Kept, ...]
    parts: tuple[Mixer, ...]


@dataclass
class Rows:
    """The last rows of a value along ``dim``, with ``fill`` before the first row of all."""

    carried: Carried
    value: Expr  # the value in a segment
    first: Expr  # the value in the first segment
    dim: str
    back: str  # the axis that counts the rows
    fill: float
    lengths: list[Expr]

    @property
    def before(self) -> Ref:
        axes = (self.value.axes - {self.dim}) | {self.back}
        return Ref(self.carried.before, axes, self.value.kind)


@dataclass
class Sum:
    """The sum of a value along ``dim`` so far."""

    carried: Carried
    value: Expr
    first: Expr
    dim: str

    @property
    def before(self) -> Ref:
        return Ref(self.carried.before, self.value.axes - {self.dim}, sum_kind(self.value))


@dataclass
class CarriedState:
    """What segments of one mixer hand over, as it is found."""

    mixer: Mixer
    axis: SequenceAxis
    states: list[Carried] = field(default_factory=list)
    rows: dict[tuple[Expr, str, float], Rows] = field(default_factory=dict)
    sums: dict[tuple[Expr, str], Sum] = field(default_factory=dict)
    keys: dict[Expr, Kept] = field(default_factory=dict)
    counted: str | None = None
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.taken |= names_taken(self.mixer)

    def rows_before(self) -> Ref:
        """How many rows went before the segment."""
        if self.counted is None:
            self.counted = self.free(f"{self.axis.root.lower()}_before")
        return Ref(self.counted, frozenset(), Kind.INT)

    @cached_property
    def seen(self) -> str:
        """The axis of all keys so far."""
        return self.free_dim("Seen")

    def value(self, stem: str, what: str, layout: Layout, kind: Kind) -> Carried:
        """A new value that is handed over, called after ``stem``."""
        name = self.free(f"{stem}_{what}")
        return Carried(name, self.free(f"{name}_before"), self.free(f"{name}_after"), layout, kind)

    def ordered(self, dims: frozenset[str]) -> tuple[str, ...]:
        """Dims in the order of the inputs."""
        met = dict.fromkeys(dim for i in self.mixer.inputs for dim in i.dims if dim in dims)
        return (*met, *sorted(dims - set(met)))

    def free(self, name: str) -> str:
        """``name``, or a longer one that nothing has."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def free_dim(self, stem: str) -> str:
        """A new axis."""
        name, count = stem, 1
        while name in self.taken or name.lower() in self.taken:
            count += 1
            name = f"{stem}{count}"
        self.taken |= {name, name.lower()}
        return name

    def continued(self, lets: tuple[Equation, ...], stages: tuple[Stage, ...]) -> Continued:
        """Both mixers; ``lets`` and ``stages`` are those of a later segment."""
        carried = list(self.states)
        carried += [rows.carried for rows in self.rows.values()]
        carried += [running.carried for running in self.sums.values()]
        sizes = tuple((rows.back, _largest(rows.lengths)) for rows in self.rows.values())
        with_sizes = replace(self.mixer, sizes=(*self.mixer.sizes, *sizes))
        keys = tuple({kept.before: kept for kept in self.keys.values()}.values())
        start = _with_outputs(with_sizes, carried, self._after_first())
        start = _with_rows(start, keys)
        more = replace(with_sizes, lets=lets, stages=stages)
        counts = () if self.counted is None or not self._is_counted(more) else (self.counted,)
        more = _with_outputs(more, carried, self._after())
        more = replace(
            more,
            outputs=(*more.outputs, *_rows_made(keys)),
            inputs=(
                *self.mixer.inputs,
                *(Input(c.before, c.layout, c.kind, _DTYPES[c.kind]) for c in carried),
                *(kept.seen for kept in keys),
                *(Input(name, (), Kind.INT, "int32", grad=False) for name in counts),
            ),
        )
        more = _without_unread(more)
        read = names_in(*_all_values(more))
        was = names_in(*_all_values(self.mixer))
        gone = {i.name for i in self.mixer.inputs if i.name in was and i.name not in read}
        more = replace(more, inputs=tuple(i for i in more.inputs if i.name not in gone))
        only = gone - {kept.rows for kept in keys}
        return Continued(
            start,
            more,
            tuple(carried),
            self.axis,
            next(iter(counts), None),
            tuple(i.name for i in self.mixer.inputs if i.name in only),
            keys,
            in_parts(more, [(k.rows, k.before) for k in keys if k.later is not None]),
        )

    def _is_counted(self, mixer: Mixer) -> bool:
        return self.counted in names_in(*_all_values(mixer))

    def _after_first(self) -> tuple[Equation, ...]:
        """What is handed over after the first segment, in the spec's own terms."""
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
        """What is handed over after a later segment."""
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


def _with_rows(mixer: Mixer, keys: tuple[Kept, ...]) -> Mixer:
    """The mixer with the rows of keys that it computes among its outputs."""
    made = tuple(kept.first for kept in keys if kept.first is not None)
    if not made:
        return mixer
    return replace(
        mixer, stages=(*mixer.stages, Map(made)), outputs=(*mixer.outputs, *_rows_made(keys))
    )


def _rows_made(keys: tuple[Kept, ...]) -> tuple[Output, ...]:
    """Outputs for the rows of keys that are computed."""
    return tuple(
        Output(kept.rows, kept.layout, kept.seen.kind, dtype=kept.seen.dtype)
        for kept in keys
        if kept.first is not None
    )


def _all_values(mixer: Mixer) -> list[Expr]:
    found = [let.value for let in mixer.lets]
    return [*found, *(value for stage in mixer.stages for _, value in values(stage))]


def _without_unread(mixer: Mixer) -> Mixer:
    """Without the lets and stages that only ``initial`` read."""
    made: dict[str, list[Expr]] = {let.name: [let.value] for let in mixer.lets}
    for stage in mixer.stages:
        made |= {one.name: [value for _, value in values(stage)] for one in stage.results}
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
        stages=tuple(s for s in mixer.stages if any(made.name in read for made in s.results)),
    )


def _largest(lengths: list[Expr]) -> Expr:
    if all(isinstance(length, Literal) for length in lengths):
        return Literal(max(int(length.value) for length in lengths if isinstance(length, Literal)))
    largest = lengths[0]
    for length in lengths[1:]:
        largest = call("max", largest, length)
    return largest


def sum_kind(value: Expr) -> Kind:
    """The kind of sums of a value."""
    return max(value.kind, Kind.INT)


__all__ = ["Carried", "CarriedState", "Continued", "Kept", "Rows", "Sum", "sum_kind"]
