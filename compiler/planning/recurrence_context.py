"""What the kernels of a recurrence share: its expressions inlined, buffers, and the grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ...ir.errors import UnsupportedError
from ...ir.expression import Cumsum, Expr, Index, Kind, Read, Reduce, Ref, Solve, product_of
from ...ir.mixer import Line, Mixer, Recurrence, Rounds, Stage, State
from ...ir.names import names_in
from ...ir.optional import expressions
from ...ir.plan import Buffer, Role
from ...ir.recurrence_tasks import Carrying, ChunkTask, LoopTask, ScanTask
from ...ir.rewriting import rebuild, walk
from ...ir.roles import group_of
from ...ir.single_assignment import before_row
from ...ir.targets import CpuTarget
from ...ir.tile import DType
from ..tiles.contraction import factors_of
from ..tiles.moving import move, without_groups
from .plan_builder import KIND_DTYPE, PlanBuilder

Placed = TypeVar("Placed", ChunkTask, LoopTask, ScanTask)


@dataclass
class RecurrenceContext:
    """A recurrence being planned.

    ``used`` are the names that something after it reads; ``wide`` those kept in float32.
    """

    builder: PlanBuilder
    stage: Recurrence
    used: frozenset[str]
    wide: frozenset[str] = frozenset()
    axes: dict[str, frozenset[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.axes = {ref.name: ref.axes for ref in self.stage.results}

    def of_part(self, stage: Recurrence, used: frozenset[str]) -> RecurrenceContext:
        """That of some of the lines, inlined: results have the axes that they have here."""
        made = RecurrenceContext(self.builder, stage, used, self.wide)
        made.axes = self.axes
        return made

    # ------------------------------------------------------------------------- expressions

    def inlined(self) -> Recurrence:
        """The stage with every name from outside inlined, and no reads by group of heads."""
        builder, stage = self.builder, self.stage
        saved = {name: builder.names.pop(name) for name in self.axes if name in builder.names}

        def line(one: Line) -> Line:
            match one:
                case Rounds(over, lines):
                    return Rounds(over, tuple(line(inner) for inner in lines))
                case _:
                    return replace(one, value=self.outside(one.value))

        states = tuple(replace(s, initial=self.outside(s.initial)) for s in stage.states)
        reset = None if stage.reset is None else self.outside(stage.reset)
        step = tuple(line(one) for one in stage.step)
        builder.names.update(saved)
        return replace(stage, states=states, step=step, reset=reset)

    def outside(self, expr: Expr) -> Expr:
        """``expr`` with names from outside the stage inlined."""
        return without_groups(self.builder.inlined(expr), self.builder.context.heads)

    def materialised(self, expr: Expr, states: Iterable[str]) -> Expr:
        """``expr`` with what is better computed for all rows at once in buffers.

        ``states``: names of values that come about row by row.
        """
        names = frozenset(states)
        if reads(expr, names):
            return rebuild(expr, lambda child: self.materialised(child, names))
        builder = self.builder
        if builder.mixer.wide and not isinstance(builder.target, CpuTarget):
            outside = _without_axes_of_sum(expr)
            if outside is not None:
                return self.materialised(outside, names)
        if self._is_product(expr):
            expr = self.by_head(expr)
            stored = builder.stored.get(expr)
            return stored or builder.store(
                builder.temporary_name(expr), expr, None, "temporary", "a product for all rows"
            )
        if expr.children and not isinstance(expr, Read | Cumsum):
            expr = rebuild(expr, lambda child: self.materialised(child, names))
        return builder.materialised(expr, None, None, inside=True)

    def by_head(self, expr: Expr) -> Expr:
        """What has values for heads and for groups of them, for heads alone: as it is stored."""
        at: dict[str, Expr] = {}
        for group, head in self.builder.context.heads:
            if {group, head} <= expr.axes:
                at[group] = group_of(group, head)
        return move(expr, at) if at else expr

    def _is_product(self, expr: Expr) -> bool:
        """A sum of more terms than its operands have elements, row by row.

        Not one that is a product of matrices in each row: rows gain nothing by being together.
        """
        if not isinstance(expr, Reduce) or self.stage.over not in expr.axes:
            return False
        leaves = [n.axes for n in walk(expr.x) if isinstance(n, Ref)]
        fixed = self.builder.context.sizes.keys()
        if all(len(axes & fixed) > 1 for axes in leaves) and len(expr.axes & fixed) > 1:
            return False
        return all(axes < expr.x.axes for axes in leaves) and len(leaves) > 1

    # ----------------------------------------------------------------------------- results

    def declare(self, name: str, kind: Kind) -> str:
        """The buffer of a result: an output of the mixer, or a temporary."""
        builder, axes = self.builder, self.axes[name]
        output = next((o for o in builder.mixer.outputs if o.name == name), None)
        dims = builder.order(axes) if output is None else output.dims
        dtype = KIND_DTYPE.get(kind, DType.FLOAT32)
        if dtype is DType.FLOAT32 and self.stage.over in axes and self._is_narrow(name, axes):
            dtype = builder.dtype
        role: Role = "temporary" if output is None else "output"
        builder.context.buffers[name] = Buffer(name, dims, dtype, role)
        builder.names[name] = Ref(name, axes, kind)
        return name

    def carrying(self, state: State) -> Carrying:
        """A state as a kernel holds it: ``S.in`` is its name where it is read and where it ends."""
        before = before_row(state)
        last = self.declare(state.name, state.kind) if state.name in self.used else None
        initial = self.builder.materialised(state.initial, None, None)
        return Carrying(state.name, state.dims, state.kind, initial, before, before, last)

    def _is_narrow(self, name: str, axes: frozenset[str]) -> bool:
        """Whether rows are kept in the working precision: outputs, and what has channels."""
        builder = self.builder
        if name in self.wide or builder.is_wide(name) or builder.asks_for_float32(name):
            return False
        outputs = {output.name for output in builder.mixer.outputs}
        return name in outputs or bool(axes & builder.roles.features)

    # -------------------------------------------------------------------------------- grid

    def placed(self, task: Placed, whole: frozenset[str] = frozenset()) -> Placed:
        """A task of the stage with its grid, as what its rows compute allows.

        ``whole``: axes that a program holds whole whatever the values say.
        """
        whole |= task.walked - {task.over}
        positions, tiled = self._grid(tuple(task.row_values), whole)
        kept = tuple(dim for dim in positions if dim not in task.walked)
        return replace(task, positions=kept, tiled=tiled)

    def _grid(
        self, exprs: Sequence[Expr], whole: frozenset[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Dims with one position per program, and the one that programs take blocks of."""
        builder, stage = self.builder, self.stage
        dims = frozenset[str]().union(*(s.dims for s in stage.states), *(e.axes for e in exprs))
        dims -= {stage.over}
        groups = {g for g, h in builder.context.heads if h in dims}
        mixed = mixed_axes(exprs) | whole
        listed = [d for s in stage.states for d in s.listed]
        own = frozenset(d for d in dims if d in builder.context.sizes or d in listed)
        sizes = {d: builder.context.sizes.get(d, 1 << 20) for d in own}
        for dim in sorted(own & mixed):
            if dim not in builder.context.sizes:
                raise _too_long(builder.mixer.name, dim, exprs)
        free = sorted(own - mixed)
        positions = builder.order(dims - own - groups)
        if not free:
            return positions, ()
        tiled = max(free, key=lambda d: (sizes[d], listed.index(d) if d in listed else -1))
        return positions, (tiled,)


def _without_axes_of_sum(expr: Expr) -> Expr | None:
    """A sum of products with the factors that lack its axes taken out; None where there are none.

    sum(q * k * v, D) --> sum(q * k, D) * v: a number for each row beside what the row has anyway.
    """
    if not isinstance(expr, Reduce) or expr.op != "sum" or expr.where is not None or expr.group:
        return None
    factors = factors_of(expr.x)
    outside = [factor for factor in factors if not factor.axes & {*expr.over}]
    inside = [factor for factor in factors if factor not in outside]
    if not outside or not inside:
        return None
    rest: Expr = replace(expr, x=product_of(inside))
    return product_of([rest, *outside])


def reads(expr: Expr, names: frozenset[str]) -> bool:
    """Whether an expression mentions one of the names."""
    return not names.isdisjoint(names_in(expr))


def mixed_axes(exprs: Iterable[Expr]) -> frozenset[str]:
    """The axes along which some expression needs other positions than its own."""
    return frozenset(dim for expr in exprs for node in walk(expr) for dim in mixed_by(node))


def mixed_by(node: Expr) -> tuple[str, ...]:
    """The axes along which an expression itself needs other positions of what is in it."""
    match node:
        case Reduce(over=over):
            return over
        case Cumsum(over=axis):
            return (axis,)
        case Solve(left=left, right=right):
            return left, right
        case Read(at=at):
            return tuple(dim for dim, index in at if index != Index(dim))
    return ()


def _too_long(name: str, dim: str, exprs: Iterable[Expr]) -> UnsupportedError:
    """The error where a step mixes along an axis of any length, at the term that does."""
    error = UnsupportedError(f"{name}: the step mixes along {dim}, which is too long to hold")
    nodes = (node for expr in exprs for node in walk(expr) if dim in mixed_by(node))
    span = next((node.span for node in nodes if node.span is not None), None)
    if span is not None:
        error.line, error.column = span.line, span.column
    return error


def names_read(mixer: Mixer, stage: Stage) -> frozenset[str]:
    """Names that an output, a let, or a stage after this one reads."""
    later = mixer.stages[mixer.stages.index(stage) + 1 :]
    rest = replace(mixer, stages=later)
    return names_in(*expressions(rest)) | {output.name for output in mixer.outputs}
