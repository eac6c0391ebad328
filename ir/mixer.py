"""The mixer level: what a spec says, as typed equations.

Its meaning is the float64 reference (``backends/reference``). Loading a spec gives one of these;
every later step takes it and nothing else of the spec.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal as OneOf

from .expression import Expr, Kind, Ref, Span

# One tensor axis is a product of dims, row-major, the last factor fastest; () is the literal 1.
AxisProduct = tuple[str, ...]
Layout = tuple[AxisProduct, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """That a module keeps an input: to train it, or as a buffer; equations know nothing of it."""

    trained: bool
    start: Expr | None = None  # the values that it starts from, by size, param and position


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that the caller passes; ``layout`` is the order of its axes in memory terms."""

    name: str
    layout: Layout
    kind: Kind = Kind.REAL
    dtype: str | None = None  # "int32" ...; None: the working precision
    sorted: bool = False  # non-decreasing along its last axis
    grad: bool = True
    default: float | int | bool | None = None  # None: the input is required
    # Of the tensors that a mixer is checked and timed with, and no promise that kernels count on:
    range: tuple[Expr, Expr] | None = None  # where the values lie, in sizes and params
    unit: str | None = None  # the axis along which vectors have norm 1
    held: Held | None = None  # a weight or a buffer; None: what a module is called with
    span: Span | None = field(default=None, compare=False)

    @property
    def dims(self) -> tuple[str, ...]:
        """All dims in order, products taken apart."""
        return tuple(dim for product in self.layout for dim in product)


@dataclass(frozen=True, slots=True)
class Param:
    """A number that the caller may override; ``value`` is an expression in sizes and params."""

    name: str
    value: Expr
    kind: Kind
    runtime: bool = False
    flag: bool = False
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Table:
    """A param with axes: constant numbers, row-major over ``dims``."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    values: tuple[float, ...]
    kind: Kind


@dataclass(frozen=True, slots=True)
class Equation:
    """``name = value``. ``text`` is the line as the spec has it."""

    name: str
    value: Expr
    text: str = field(default="", compare=False)
    span: Span | None = field(default=None, compare=False)

    @property
    def ref(self) -> Ref:
        """The name as later equations see it."""
        return Ref(self.name, self.value.axes, self.value.kind)


@dataclass(frozen=True, slots=True)
class Map:
    """Equations computed one after another; each may use the ones before it."""

    equations: tuple[Equation, ...]
    name: str | None = None

    @property
    def results(self) -> tuple[Ref, ...]:
        """Every name that the stage makes, with its axes."""
        return tuple(equation.ref for equation in self.equations)


@dataclass(frozen=True, slots=True)
class Attention:
    """For each position of ``queries``, a weighted sum over the axis ``over``.

    With s the score, w = ``weight`` (an expression in ``Ref("score")``), visible where ``mask``:
    total = sum of w over the visible keys (+ w at the ``sink`` logit, where there is one),
    p = w / ``denominator`` (an expression in ``Ref("total")``), 0 where masked, and 0 where the
    denominator is 0; each output is sum(p * gain * value, over).
    ``softmax`` is weight exp(score) with denominator total; ``none`` is weight score with
    denominator 1. Reductions inside weight and denominator see visible pairs only.
    ``lse`` names log(total); ``weights`` names p.
    """

    over: str
    score: Expr
    mask: Expr | None
    weight: Expr
    denominator: Expr
    sink: Expr | None
    gain: Expr | None
    outputs: tuple[Equation, ...]  # value: what is summed, before weighting
    lse: str | None = None
    weights: str | None = None
    name: str | None = None
    texts: tuple[tuple[str, str], ...] = field(default=(), compare=False)  # (clause, as written)

    @property
    def queries(self) -> frozenset[str]:
        """The axes of score and mask (and gain, sink) other than ``over``."""
        parts = (self.score, self.mask, self.gain, self.sink)
        axes = frozenset[str]().union(*(p.axes for p in parts if p is not None))
        return axes - {self.over}

    @property
    def results(self) -> tuple[Ref, ...]:
        """Every name that the stage makes, with its axes."""
        made = [
            Ref(o.name, self.queries | (o.value.axes - {self.over}), Kind.REAL)
            for o in self.outputs
        ]
        if self.lse is not None:
            made.append(Ref(self.lse, self.queries, Kind.REAL))
        if self.weights is not None:
            made.append(Ref(self.weights, self.queries | {self.over}, Kind.REAL))
        return tuple(made)


@dataclass(frozen=True, slots=True)
class State:
    """A value that a recurrence carries from one row to the next.

    ``dims`` are the listed ones and what flows in (batch, heads). ``initial`` has no axis outside
    them and not the recurrence's own. A complex state of a spec is two of these, its real and its
    imaginary part.
    """

    name: str
    dims: frozenset[str]
    initial: Expr
    kind: Kind = Kind.REAL
    dtype: str | None = None  # None: float32 in kernels
    listed: tuple[str, ...] = ()  # the axes that the spec lists, in its order
    span: Span | None = field(default=None, compare=False)

    @property
    def ref(self) -> Ref:
        """The state as the lines of the step see it."""
        return Ref(self.name, self.dims, self.kind)


@dataclass(frozen=True, slots=True)
class Rounds:
    """An inner loop of a step: its lines once for each position of ``over``, in order."""

    over: str
    step: tuple[Line, ...]


# A line of a step: an assignment, to a state or to a name of the step, or an inner loop.
Line = Equation | Rounds


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The body of the loop over ``over``, with values carried from row to row.

    Each row runs the lines of ``step`` in order; a name means its latest value. A value that has
    ``over`` among its axes stands for its row, and keeps the axis in its type; a state's type does
    not have it. An assignment to a state's name replaces the state (spread along the axes that the
    value lacks); any other name is the step's own, and no name of the mixer outside it. Inside
    ``Rounds`` a value that has the inner axis stands for its row likewise; a name made there is
    whole, with that axis, after the loop. ``reset`` sets every state to 0 before the rows where it
    is true; ``reverse`` visits the last row first.
    """

    over: str
    states: tuple[State, ...]
    step: tuple[Line, ...]
    reset: Expr | None = None
    reverse: bool = False
    name: str | None = None
    texts: tuple[tuple[str, str], ...] = field(default=(), compare=False)  # (clause, as written)

    @property
    def own(self) -> tuple[Ref, ...]:
        """The step's own names as later stages see them: one row for each row of ``over``."""
        states = {state.name for state in self.states}
        made: dict[str, Ref] = {}
        for equation, rounds in assignments(self.step):
            if equation.name not in states:
                axes = equation.value.axes | {self.over, *rounds}
                made[equation.name] = Ref(equation.name, axes, equation.value.kind)
        return tuple(made.values())

    @property
    def results(self) -> tuple[Ref, ...]:
        """Every name that the stage makes: rows of the step's own names, last states."""
        return (*self.own, *(state.ref for state in self.states))


def assignments(
    step: tuple[Line, ...], rounds: tuple[str, ...] = ()
) -> Iterator[tuple[Equation, tuple[str, ...]]]:
    """Every assignment of a step in order, with the axes of the inner loops around it."""
    for line in step:
        match line:
            case Equation():
                yield line, rounds
            case Rounds(over, lines):
                yield from assignments(lines, (*rounds, over))


Rule = OneOf["top", "above", "mass"]


@dataclass(frozen=True, slots=True)
class Select:
    """For each row, which positions along ``over`` (several axes: of them together) are chosen.

    The candidates, where ``among`` is true and the score is a number, are ordered by falling
    score, equal ones by position (row-major over several axes). ``rule`` and ``bound``, a value of
    the row, say how many of them are kept: ``top``: that many, or all where there are fewer;
    ``above``: those with a larger score; ``mass``: the fewest that have this share of the softmax
    over the candidates. What ``always`` admits is chosen too, whatever ``among`` says of it.
    ``output`` names the choice, a truth value for each row and position; ``listed`` names the
    positions as numbers along the axis ``slots``: the kept ones, best first, then the others by
    position, then -1; what finds no room there is left out. A choice has no gradient.
    """

    over: tuple[str, ...]
    score: Expr
    rule: Rule
    bound: Expr
    among: Expr | None = None
    always: Expr | None = None
    output: str = "selected"
    listed: str | None = None
    slots: str | None = None
    name: str | None = None
    texts: tuple[tuple[str, str], ...] = field(default=(), compare=False)  # (clause, as written)

    @property
    def queries(self) -> frozenset[str]:
        """The axes that have a choice of their own: all other than ``over``."""
        parts = (self.score, self.bound, self.among, self.always)
        axes = frozenset[str]().union(*(p.axes for p in parts if p is not None))
        return axes - {*self.over}

    @property
    def results(self) -> tuple[Ref, ...]:
        """Every name that the stage makes, with its axes."""
        chosen = Ref(self.output, self.queries | {*self.over}, Kind.BOOL)
        if self.listed is None or self.slots is None:
            return (chosen,)
        return chosen, Ref(self.listed, self.queries | {self.slots}, Kind.INT)


Stage = Attention | Map | Recurrence | Select


@dataclass(frozen=True, slots=True)
class Output:
    """A result that the caller gets, with the order of its axes."""

    name: str
    layout: Layout
    kind: Kind = Kind.REAL
    span: Span | None = field(default=None, compare=False)
    dtype: str | None = None  # "float32": stored so whatever the inputs are; None: as they are

    @property
    def dims(self) -> tuple[str, ...]:
        """All dims in order, products taken apart."""
        return tuple(dim for product in self.layout for dim in product)


@dataclass(frozen=True)
class Mixer:
    """A loaded spec.

    ``sequences`` maps a dim to the sequence whose positions it runs over (dims of one sequence
    have one length). ``sizes`` are derived sizes, in an order that resolves. ``heads`` maps a
    dim to the larger one that it divides; where a value with the smaller meets the larger, the
    loader has already put a Read. ``lets`` are in dependency order and visible to all stages;
    a stage's own lets are among them under names of their own.
    """

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    stages: tuple[Stage, ...]
    params: tuple[Param, ...] = ()
    tables: tuple[Table, ...] = ()
    lets: tuple[Equation, ...] = ()
    sequences: tuple[tuple[str, str], ...] = ()
    sizes: tuple[tuple[str, Expr], ...] = ()
    heads: tuple[tuple[str, str], ...] = ()
    about: str = ""
    source: str = ""
    path: str | None = field(default=None, compare=False)
    text: str = field(default="", compare=False)  # the spec file, whole
    tiling: tuple[tuple[str, tuple[int, ...]], ...] = ()
    check: tuple[tuple[str, int], ...] = ()  # sizes to verify at, beside the standard ones
    check_span: Span | None = field(default=None, compare=False)
    bench: tuple[tuple[tuple[str, int], ...], ...] = ()
    wide: bool = False  # what kernels hand to each other keeps float32

    def input(self, name: str) -> Input:
        """The input called ``name``."""
        return next(i for i in self.inputs if i.name == name)

    def param(self, name: str) -> Param:
        """The param called ``name``."""
        return next(p for p in self.params if p.name == name)

    def sequence(self, dim: str) -> str | None:
        """The sequence that ``dim`` runs over, if any."""
        return dict(self.sequences).get(dim)
