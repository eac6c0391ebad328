"""A recurrence whose step goes through more than a kernel holds: kernels for each row.

The step is planned as any equations are, with a row's inputs and the states as buffers; the host
runs what it becomes once for each row (``RowLoop``). What no state goes into is made before, for
all rows at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...ir.expression import (
    TRANSCENDENTAL,
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Solve,
)
from ...ir.mixer import Attention, Recurrence, State
from ...ir.plan import Buffer, Role
from ...ir.rewriting import rebuild, substitute, transform, walk, with_names
from ...ir.roles import axes_of_keys, query_axis
from ...ir.row_loop import Handover, RowLoop, members
from ...ir.single_assignment import Repeated, Step, Version
from ...ir.task import buffers_of
from ...ir.tile import DType
from ..analysis.recurrence.versions import versions
from .attention import AttentionPlan
from .plan_builder import KIND_DTYPE
from .recurrence_context import RecurrenceContext, mixed_by, reads
from .softmax_sums import attention_of

_HEAVY = (Reduce, Cumsum, Solve)
# What a state hands over by, in the order of ``Handover``'s making.
_HANDED: tuple[tuple[str, Role], ...] = (
    ("before", "view"),
    ("after", "temporary"),
    ("start", "temporary"),
    ("end", "view"),
)


@dataclass
class RowLoopPlan:
    """A recurrence, its names inlined, as kernels that the host runs for each row."""

    context: RecurrenceContext
    stage: Recurrence
    now: dict[str, Expr] = field(default_factory=dict)  # what versions are, by their names
    by_row: set[str] = field(default_factory=set)  # names of what comes about row by row
    rows: dict[str, str] = field(default_factory=dict)  # buffer -> the view of its row
    made: dict[str, str] = field(default_factory=dict)  # view -> the buffer whose row it is
    last: dict[str, str] = field(default_factory=dict)  # version that is only a result -> its name
    one: str = ""  # a dim of length 1

    @property
    def has_rounds(self) -> bool:
        """Whether there is a loop within a row: of one kernel."""
        return any(isinstance(line, Repeated) for line in versions(self.stage).lines)

    def long_axis(self) -> str | None:
        """An axis of any length that a state's row is mixed along; None where kernels can hold
        all that a row sees."""
        step = versions(self.stage)
        if self.has_rounds:
            return None
        names = {ref.name for _, ref in step.before}
        mixed: set[str] = set()
        for line in step.lines:
            assert isinstance(line, Version)
            if reads(line.value, frozenset(names)):
                names.add(line.ref.name)
                for node in walk(line.value):
                    # An entry of an input that a state finds is loaded, whatever its axis.
                    value = node.x if isinstance(node, Read) else node
                    if reads(value, frozenset(names)):
                        mixed.update(mixed_by(node))
        long = mixed - self.context.builder.context.sizes.keys() - {self.stage.over}
        return min(long, default=None)

    def run(self) -> None:
        """Plan it, and make its results known to later stages."""
        builder, step = self.context.builder, versions(self.stage)
        first, handed, places = len(builder.tasks), dict[str, Handover](), dict[str, str]()
        for state in self.stage.states:
            before, after = dict(step.before)[state.name], dict(step.after)[state.name]
            if before == after:  # no line changes it
                self.now[before.name] = builder.names[state.name] = state.initial
                continue
            hand = handed[state.name] = self._handover(state)
            self.now[before.name] = Ref(hand.before, before.axes, before.kind)
            builder.names[state.name] = Ref(hand.end, before.axes, before.kind)
            assert isinstance(after, Ref)
            places[after.name] = hand.after
        values = [line.value for line in step.lines if isinstance(line, Version)]
        self.last = {
            ref.name: name
            for name, ref in step.own
            if name in self.context.used
            and ref.name not in places
            and not any(reads(value, frozenset({ref.name})) for value in values)
        }
        for line in step.lines:
            assert isinstance(line, Version)
            self._line(line, places)
        self._results(step)
        rows = tuple((view, whole) for whole, view in self.rows.items())
        made, states = tuple(self.made.items()), tuple(handed.values())
        loop = RowLoop(self.stage.over, self.stage.reverse, rows, made, states)
        builder.loops.append(loop)
        self._put_together(first, loop)

    # ------------------------------------------------------------------------------ memory

    def _handover(self, state: State) -> Handover:
        """The buffers of a state, the first of them filled."""
        builder = self.context.builder
        before, after, start, end = (
            self._declare(f"{state.name}_{part}", state.dims, state.ref.tensor_kind, role)
            for part, role in _HANDED
        )
        dims = builder.context.buffers[start].dims
        builder.compute(start, state.initial, dims, "what the first row finds")
        self.by_row.add(before)
        return Handover(start, before, after, end)

    def _declare(
        self,
        hint: str,
        axes: frozenset[str],
        kind: Kind,
        role: Role,
        narrow: DType | None = None,
    ) -> str:
        """A buffer with what a row hands to kernels: no real number in it loses bits, but those
        that products are made of (``narrow``)."""
        builder = self.context.builder
        name = builder.free_name(hint)
        dtype = KIND_DTYPE.get(kind, narrow or DType.FLOAT32)
        dims = builder.order(axes)
        builder.context.buffers[name] = Buffer(name, dims, dtype, role)
        return name

    def _view(self, whole: str, hint: str) -> str:
        """A row of a buffer as a buffer."""
        builder, over = self.context.builder, self.stage.over
        buffer = builder.context.buffers[whole]
        name = builder.free_name(hint)
        dims = tuple(dim for dim in buffer.dims if dim != over)
        builder.context.buffers[name] = Buffer(name, dims, buffer.dtype, "view")
        return name

    # ------------------------------------------------------------------------------- lines

    def _line(self, line: Version, places: Mapping[str, str]) -> None:
        """A line's value: in a buffer where it is a state's next, or where making it takes sums."""
        value = with_names(line.value, self.now)
        if not reads(value, frozenset(self.by_row)) and line.ref.name not in places:
            self.now[line.ref.name] = value
            return
        value = self.context.by_head(self._row(self._free(value)))
        name = places.get(line.ref.name)
        if name is None and not _is_heavy(value):
            self.now[line.ref.name] = value
            return
        axes = self._axes(line.ref)
        why = "what the next row finds" if name else "made once for a row"
        result = self.last.pop(line.ref.name, None)
        if result is not None and attention_of(value, result) is None:
            name, why = self._result(result, line.ref.kind), "a row's result"
        name = name or self._declare(f"{line.name}_now", axes, line.ref.kind, "temporary")
        self._compute(name, value, why)
        self.by_row.add(name)
        self.now[line.ref.name] = Ref(name, axes, line.ref.kind)

    def _axes(self, ref: Ref) -> frozenset[str]:
        """What a row of it has: heads where it is made of heads and of groups of them."""
        groups = {group for group, head in self.context.builder.context.heads if head in ref.axes}
        return ref.axes - {self.stage.over} - groups

    def _compute(self, name: str, value: Expr, why: str) -> None:
        """Fill a buffer; sums weighted by a softmax are attentions, the whole value or parts."""
        builder = self.context.builder
        dims = builder.context.buffers[name].dims
        if value.axes == frozenset(dims) and self._attention(value, name):
            return

        def change(node: Expr) -> Expr | None:
            part = f"{name}_part"
            if not isinstance(node, Reduce) or attention_of(node, part) is None:
                return None
            part = self._declare(part, node.axes, node.kind, "temporary")
            self._attention(node, part)
            self.by_row.add(part)
            return Ref(part, node.axes, node.kind)

        builder.compute(name, transform(value, change), dims, why)

    def _attention(self, value: Expr, name: str) -> bool:
        """Plan a value as an attention; whether it is one."""
        builder = self.context.builder
        stage = attention_of(value, name)
        if stage is None:
            return False
        keyed = frozenset[str]().union(*axes_of_keys(builder.mixer, stage))
        lone = {n for n in walk(stage.score) if isinstance(n, Ref) and stage.over not in n.axes}
        if query_axis(builder.mixer, stage) not in keyed or not any(ref.axes for ref in lone):
            AttentionPlan(builder, stage, DType.FLOAT32).run()
            return True
        self._of_one_row(stage, {ref for ref in lone if ref.axes}, name)
        return True

    def _of_one_row(self, stage: Attention, queries: set[Ref], name: str) -> None:
        """Plan an attention in which every query has keys of its own: as one of a single row,
        whose products are of matrices."""
        builder = self.context.builder
        if not self.one:
            self.one = builder.free_dim("One")
            builder.add_dim(self.one, Literal(1))
        rows: dict[Expr, Expr] = {}
        for ref in sorted(queries, key=lambda ref: ref.name):
            narrow = builder.dtype if ref.axes & builder.roles.features else None
            row = self._declare(
                f"{ref.name}_row", ref.axes | {self.one}, ref.kind, "temporary", narrow
            )
            dims = builder.context.buffers[row].dims
            builder.compute(row, ref, dims, "what a single row asks")
            rows[ref] = Ref(row, ref.axes | {self.one}, ref.kind)
            self.by_row.add(row)
        found = f"{name}_found"
        (output,) = stage.outputs
        axes = stage.results[0].axes | {self.one}
        asked = replace(
            stage,
            score=substitute(stage.score, rows),
            outputs=(replace(output, name=found),),
        )
        AttentionPlan(builder, asked, DType.FLOAT32).run()
        whole = Read(Ref(found, axes, Kind.REAL), ((self.one, Literal(0)),))
        dims = builder.context.buffers[name].dims
        builder.compute(name, whole, dims, "what the row finds")

    def _results(self, step: Step) -> None:
        """What each row gives, in its row of a buffer."""
        context, builder = self.context, self.context.builder
        for name, ref in step.own:
            value = self.now[ref.name]
            if name not in context.used or (isinstance(value, Ref) and value.name in self.made):
                continue
            if not reads(value, frozenset(self.by_row)):
                builder.names[name] = builder.named(name, value)
                continue
            view = self._result(name, ref.kind)
            builder.compute(view, value, builder.context.buffers[view].dims, "a row's result")

    def _result(self, name: str, kind: Kind) -> str:
        """The view of a row of a result."""
        whole = self.context.declare(name, kind)
        view = self._view(whole, f"{name}_row")
        self.made[view] = whole
        return view

    # ---------------------------------------------------------------------------- a row's

    def _free(self, expr: Expr) -> Expr:
        """``expr`` with sums that no state goes into in buffers."""
        builder = self.context.builder
        if reads(expr, frozenset(self.by_row)):
            return rebuild(expr, self._free)
        if isinstance(expr, _HEAVY) or (self.stage.over not in expr.axes and _is_costly(expr)):
            known = builder.stored.get(expr)
            return known or self._free_value(expr)
        if isinstance(expr, Read) and self.stage.over in dict(expr.at):
            return expr
        return rebuild(expr, self._free)

    def _free_value(self, expr: Expr) -> Ref:
        """A buffer of what no state goes into; sums that lack one of its axes have their own."""
        builder = self.context.builder
        name, value = builder.temporary_name(expr), expr
        if not isinstance(expr, _HEAVY):
            value = rebuild(expr, lambda part: self._smaller(part, expr.axes))
        value = self.context.by_head(value)
        reason = "no state goes into it"
        ref = builder.store(builder.free_name(name), value, None, "temporary", reason)
        builder.stored[expr] = ref
        return ref

    def _smaller(self, expr: Expr, axes: frozenset[str]) -> Expr:
        """``expr`` with sums that lack one of the axes in buffers."""
        if isinstance(expr, _HEAVY) and not axes <= expr.axes:
            return self._free(expr)
        return rebuild(expr, lambda part: self._smaller(part, axes))

    def _row(self, expr: Expr) -> Expr:
        """What ``expr`` is in a row: values with ``over`` are read at the row."""
        over = self.stage.over
        if over not in expr.axes:
            return expr
        match expr:
            case Ref(name, axes, kind):
                return Ref(self._row_of(name), axes - {over}, kind)
            case Index():
                place = self.context.builder.stored.get(expr)
                if place is None:
                    place = self._stored(expr, f"{over.lower()}_rows")
                return self._row(place)
            case Read(x, at) if over in dict(at):
                x = x if isinstance(x, Ref) else self._stored(x, "made")
                return Read(x, tuple((d, self._row(e)) for d, e in at), expr.fill, span=expr.span)
            case _:
                return rebuild(expr, self._row)

    def _stored(self, expr: Expr, hint: str) -> Ref:
        builder = self.context.builder
        name = builder.free_name(hint)
        return builder.store(name, expr, None, "temporary", "for all rows at once")

    def _row_of(self, name: str) -> str:
        """The view of a row of a buffer, which has ``over`` as an axis of its own."""
        builder = self.context.builder
        given = next((i for i in builder.mixer.inputs if i.name == name), None)
        whole = name
        if given is not None and any(len(product) != 1 for product in given.layout):
            buffer = builder.context.buffers[name]
            kind = given.kind
            whole = self._stored(Ref(name, frozenset(buffer.dims), kind), f"{name}_rows").name
        if whole not in self.rows:
            self.rows[whole] = self._view(whole, f"{name}_row")
            self.by_row.add(self.rows[whole])
        return self.rows[whole]

    # ---------------------------------------------------------------------------- the order

    def _put_together(self, first: int, loop: RowLoop) -> None:
        """Kernels of a row stand together, behind what they have in common for all rows."""
        builder = self.context.builder
        tail = builder.tasks[first:]
        steps = [(buffers_of(task) - {*task.writes}, task.writes) for task in tail]
        inside = {*members(loop, steps)}
        outside = [task for place, task in enumerate(tail) if place not in inside]
        builder.tasks[first:] = outside + [tail[place] for place in sorted(inside)]


def _is_costly(expr: Expr) -> bool:
    """Whether a value takes a costly function, and no more memory than sums that it is made of."""
    if not any(isinstance(n, Call) and n.fn in TRANSCENDENTAL for n in walk(expr)):
        return False
    return any(isinstance(n, _HEAVY) and n.axes == expr.axes for n in walk(expr))


def _is_heavy(expr: Expr) -> bool:
    """Whether a value takes sums, or reads at computed places: what a kernel makes once."""
    for node in walk(expr):
        if isinstance(node, _HEAVY):
            return True
        if isinstance(node, Read) and any(not isinstance(e, Literal) for _, e in node.at):
            return True
    return False
