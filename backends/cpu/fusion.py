"""Which values get an array, and which loop nest makes each.

A cheap value is written anew wherever it is read ("virtual"); the others are made once, in a nest
over their axes. Nests over the same axes are one where nothing in between prevents it, so a chain
such as exp2(score - top), its sum, and its rounding for the next dot is a single pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from ...ir.tile import (
    Cast,
    Combine,
    Comment,
    Constant,
    Convolve,
    Dot,
    Elementwise,
    For,
    Load,
    Op,
    Program,
    Range,
    Reduce,
    Rename,
    Scan,
    Solve,
    Store,
    Substitute,
    Value,
    all_ops,
    made_by,
    operands,
)
from ...ir.transform import Transform
from .layout import Layout

_SILENT = (Store, Convolve, Transform, Comment, For, Combine)  # they make no one value
_CHEAP = 3  # operations per element that are rather done twice than stored and read
MOST_PARTIAL = 4096  # elements of sums that are folded after a nest: they stay in the L1
_COSTS = {
    **dict.fromkeys("div sqrt rsqrt".split(), 6),
    **dict.fromkeys("floordiv mod".split(), 40),
    **dict.fromkeys(
        "exp exp2 expm1 log log2 log1p tanh sigmoid logsigmoid softplus gelu gelu_tanh silu elu "
        "erf sin cos acos logaddexp pow".split(),
        16,
    ),
}


@dataclass
class Nest:
    """A loop nest over ``axes`` that makes ``sinks``; reductions in it are over ``over``.

    Some may be over ``lanes`` instead, the axis along vectors: a state that is read both ways.
    """

    axes: frozenset[str]
    over: str | None = None
    lanes: str | None = None
    sinks: list[Elementwise | Cast | Reduce] = field(default_factory=list)


Step = Op | Nest


class Fusion:
    """What is virtual, and the steps of every body of a program."""

    def __init__(self, program: Program, layout: Layout, lanes: int) -> None:
        self.program = program
        self.layout = layout
        self.lanes = lanes
        self.makers: dict[str, Op] = {}
        self.readers: dict[str, list[Op]] = defaultdict(list)
        self.steps: dict[int, list[Step]] = {}  # by the identity of a body
        self.nest_of: dict[str, Nest] = {}
        self.depth: dict[str, int] = {}
        self._op_depth: dict[int, int] = {}
        self._collect(program.body, 0)
        self._needs_array = self._array_values()
        self.virtual: set[str] = set()
        self._cost: dict[str, int] = {}
        for op in all_ops(program.body):
            self._decide(op)
        self._schedule_all(program.body)
        self.stored = self._read_elsewhere()

    # ------------------------------------------------------------------------ who reads what

    def _collect(self, ops: tuple[Op, ...], depth: int) -> None:
        for op in ops:
            self._op_depth[id(op)] = depth
            for value in operands(op):
                self.readers[value.name].append(op)
            if isinstance(op, For):
                for value in op.yields:
                    self.readers[value.name].append(op)
                for carried in op.carried:
                    self.depth[carried.inner.name] = depth + 1
                    self.depth[carried.out.name] = depth
                self.depth[op.variable.name] = depth + 1
                self._collect(op.body, depth + 1)
                continue
            if isinstance(op, Combine):
                self._collect(op.body, depth)
            for value in made_by(op):
                self.makers[value.name] = op
                self.depth[value.name] = depth

    def _array_values(self) -> set[str]:
        """Values that something other than a loop nest reads."""
        names: set[str] = set()
        for op in all_ops(self.program.body):
            match op:
                case Dot(_, a, b):
                    names |= {a.name, b.name}
                case Combine(body=body):
                    names |= {v.name for inner in (op, *body) for v in operands(inner)}
                case Scan() | Substitute() | Solve() | Rename():
                    names |= {v.name for v in operands(op)}
                case Store(_, _, value):
                    names.add(value.name)
                case For():
                    names |= {v.name for v in op.yields}
        return names

    def _decide(self, op: Op) -> None:
        if isinstance(op, Constant | Range) or (
            isinstance(op, Elementwise | Cast) and op.out.axes and self._is_virtual(op)
        ):
            self.virtual.add(op.out.name)

    def _is_virtual(self, op: Elementwise | Cast) -> bool:
        self._cost[op.out.name] = cost = self._cost_of(op)
        if op.out.name in self._needs_array:
            return False
        readers = self.readers[op.out.name]
        deeper = any(self._op_depth[id(r)] > self._op_depth[id(op)] for r in readers)
        if deeper:
            return cost <= 1
        if len(readers) == 1 and not isinstance(readers[0], For | Load | Store):
            return self._axes_of(readers[0]) == op.out.axes or cost <= _CHEAP
        return cost <= _CHEAP

    def _axes_of(self, op: Op) -> frozenset[str]:
        match op:
            case Reduce(_, _, x):
                return x.axes
            case Elementwise(out) | Cast(out):
                return out.axes
        return frozenset()

    def _cost_of(self, op: Elementwise | Cast) -> int:
        own = _COSTS.get(op.fn, 1) if isinstance(op, Elementwise) else 1
        if isinstance(op, Cast) and op.x.dtype.is_float and op.out.dtype.is_float:
            own = 0 if op.x.dtype.is_narrow else 2
        return own + sum(
            self._cost.get(a.name, 0)
            for a in operands(op)
            if a.axes == op.out.axes and a.name in self.virtual
        )

    def loops_around(self, op: Op) -> int:
        """How many loops an op is in."""
        return self._op_depth[id(op)]

    def bases(self, value: Value) -> Iterator[Value]:
        """The values that are not virtual and that ``value`` is written in."""
        if value.name not in self.virtual:
            yield value
            return
        for operand in operands(self.makers[value.name]):
            yield from self.bases(operand)

    def root(self, value: Value, over: str, other: str) -> tuple[Value, str, str]:
        """The value that this one is by another name, and what two axes are called there."""
        while isinstance(maker := self.makers.get(value.name), Rename):
            over, other = (maker.axis if a == maker.to else a for a in (over, other))
            value = maker.x
        return value, over, other

    # ---------------------------------------------------------------------------- scheduling

    def _schedule_all(self, body: tuple[Op, ...]) -> None:
        self.steps[id(body)] = _BodySchedule(self, body).steps
        for op in body:
            if isinstance(op, For):
                self._schedule_all(op.body)

    def _read_elsewhere(self) -> set[str]:
        """Values made in a nest that something outside that nest reads."""
        stored = set(self._needs_array)
        for op in all_ops(self.program.body):
            reads = [*operands(op), *(op.yields if isinstance(op, For) else ())]
            made = _made_alone(op)
            if made in self.virtual:
                continue
            home = self.nest_of.get(made)
            for value in reads:
                for base in self.bases(value):
                    maker = self.nest_of.get(base.name)
                    if maker is not None and maker is not home:
                        stored.add(base.name)
        return stored

    def chain_readers(self, name: str) -> list[Op]:
        """The ops that read a value, directly, through virtual ones or by another name."""
        found: list[Op] = []
        for op in self.readers[name]:
            made = _made_alone(op)
            if made in self.virtual or isinstance(op, Rename):
                found += self.chain_readers(made)
            else:
                found.append(op)
        return found


def _rows_first(body: tuple[Op, ...]) -> list[Op]:
    """Rows and numbers that need no pass over a state, before all else.

    So they do not stand between two passes that could be one.
    """
    first: list[Op] = []
    made = {v.name for op in body for v in made_by(op)}
    early: set[str] = set()
    for op in body:
        moves = isinstance(op, Load | Elementwise | Cast) and len(op.out.axes) <= 1
        moves |= isinstance(op, Range | Constant)
        if moves and all(v.name in early or v.name not in made for v in operands(op)):
            first.append(op)
            early |= {v.name for v in made_by(op)}
    done = {id(op) for op in first}
    return [*first, *(op for op in body if id(op) not in done)]


def _made_alone(op: Op) -> str:
    """The name of the one value that an op makes; empty for stores, loops and combinations."""
    return "" if isinstance(op, _SILENT) else op.out.name


class _BodySchedule:
    """The steps of one body: its ops in order, those that nests make gathered in nests."""

    def __init__(self, fusion: Fusion, body: tuple[Op, ...]) -> None:
        self.fusion = fusion
        self.steps: list[Step] = []
        self._at: dict[str, int] = {}  # value -> the step that makes it
        for op in _rows_first(body):
            self._add(op)

    def _add(self, op: Op) -> None:
        match op:
            case Constant() | Range():
                return
            case Elementwise(out) | Cast(out) if out.axes:
                if out.name not in self.fusion.virtual:
                    self._sink(op, out.axes, None)
            case Reduce(_, _, x, over):
                self._sink(op, x.axes, over)
            case _:
                self.steps.append(op)
                for value in made_by(op):
                    self._at[value.name] = len(self.steps) - 1

    def _sink(
        self, op: Elementwise | Cast | Reduce, axes: frozenset[str], over: str | None
    ) -> None:
        first = 0
        for operand in operands(op):
            for base in self.fusion.bases(operand):
                at = self._at.get(base.name)
                if at is not None:
                    step = self.steps[at]
                    inside = (
                        isinstance(step, Nest)
                        and step.axes == axes
                        and base.axes == axes
                        and not any(s.out == base for s in step.sinks if isinstance(s, Reduce))
                    )
                    first = max(first, at if inside else at + 1)
        nest = self._nest(first, axes, over, self._folds(op))
        nest.sinks.append(op)
        self.fusion.nest_of[op.out.name] = nest
        self._at[op.out.name] = next(n for n, s in enumerate(self.steps) if s is nest)

    def _folds(self, op: Elementwise | Cast | Reduce) -> bool:
        """Whether an op folds vectors of floats to numbers, which can wait until a nest is done."""
        if not isinstance(op, Reduce) or not op.out.dtype.is_float or not op.out.axes:
            return False
        lane = self.fusion.layout.of(op.x)[-1]
        blocks = {t.dim: t.block for t in self.fusion.program.tiles}
        partial = prod(blocks[a] for a in op.out.axes) * self.fusion.lanes
        return op.over == lane and blocks[lane] % self.fusion.lanes == 0 and partial <= MOST_PARTIAL

    def _nest(self, first: int, axes: frozenset[str], over: str | None, folds: bool) -> Nest:
        for step in self.steps[first:]:
            if not isinstance(step, Nest) or step.axes != axes:
                continue
            if over in (None, step.over, step.lanes):
                return step
            if step.over is None:
                step.over = over
                return step
            if folds and step.lanes is None:
                step.lanes = over
                return step
            if step.lanes is None and all(self._folds(s) for s in _reductions(step)):
                step.over, step.lanes = over, step.over
                return step
        nest = Nest(axes, over)
        self.steps.append(nest)
        return nest


def _reductions(nest: Nest) -> Iterator[Reduce]:
    return (s for s in nest.sinks if isinstance(s, Reduce))
