"""A mixer over a segment of its sequence: what went before comes in, what comes after goes out.

    state {S}, initial {S: S0}   -->  initial {S: S_before}, and S after the segment is an output
    u[T=t - l]                   -->  where(t - l >= 0, u[T=t - l], u_rows_before[...]), and the
                                      last rows of u are an output
    cumsum(x, T)                 -->  x_sum_before + cumsum(x, T), and the sum so far an output
    t                            -->  t + rows_before

So any split of a sequence into segments gives what one pass gives. The result is a mixer like any
other, so that every backend runs it; no segment need be longer than nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ....ir.expression import Cumsum, Expr, Index, Read, Reduce, Ref, Scalar, Size, Solve, call
from ....ir.mixer import Attention, Equation, Layout, Map, Mixer, Recurrence, Select, Stage, State
from ....ir.rewriting import rebuild, walk
from ....ir.stages import changed, values
from ...analysis.linear import expression, linear
from ...analysis.row_reach import rows_back
from .carried_state import Carried, CarriedState, Continued, Rows, Sum, sum_kind
from .parts import names_read
from .past_keys import PastKeys
from .sequence_axis import SequenceAxis, last_values, sequence_axis


def continue_sequence(mixer: Mixer) -> Continued:
    """The mixer for a first segment of a sequence, and for every later one.

    Raises:
        UnsupportedError: a term that needs rows which a segment does not have: all of them, later
            ones, or earlier ones without a bound.
    """
    axis = sequence_axis(mixer, "stepped")
    change = _Continue(mixer, axis, CarriedState(mixer, axis), last_values(mixer, axis.has))
    # An attention along the sequence writes out the lets that it reads.
    others = [s for s in mixer.stages if not isinstance(s, Attention) or not axis.has(s.over)]
    read = names_read(mixer.lets, others, [output.name for output in mixer.outputs])
    lets = tuple(change.equation(let) for let in mixer.lets if let.name in read)
    stages = tuple(made for stage in mixer.stages for made in change.stages(stage))
    return change.carried.continued(lets, stages)


@dataclass
class _Continue:
    """The rewriting of one mixer."""

    mixer: Mixer
    axis: SequenceAxis
    carried: CarriedState
    whole: frozenset[str] = frozenset()
    what: str = ""  # the equation that is being rewritten
    own: frozenset[str] = frozenset()  # names that a step makes, if in one
    done: dict[int, Expr] = field(default_factory=dict)

    # -------------------------------------------------------------------------- stages

    def equation(self, equation: Equation) -> Equation:
        self.what = equation.name
        self._check_whole(equation.value, equation.value.axes)
        return replace(equation, value=self(equation.value))

    def stages(self, stage: Stage) -> Iterator[Stage]:
        """The stage, after the rows that it adds to the keys which later segments see."""
        before = len(self.carried.keys)
        made = self.stage(stage)
        keys = list(self.carried.keys.values())[before:]
        rows = tuple(kept.later for kept in keys if kept.later is not None)
        if rows:
            yield Map(rows)
        yield made

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
            case Select():
                return self._select(stage)

    def _attention(self, stage: Attention) -> Stage:
        if self.axis.has(stage.over):
            reached = stage.queries | {stage.over}
            for self.what, value in values(stage):
                self._check_whole(value, reached)
            self.done = {}  # what ids stand for may be gone: the attention writes out its lets
            return PastKeys(self.mixer, self.axis, self.carried, self).attention(stage)
        reached = stage.queries.union(*(o.value.axes for o in stage.outputs))
        for self.what, value in values(stage):
            self._check_whole(value, reached)
        return changed(stage, self)

    def _select(self, stage: Select) -> Stage:
        for dim in stage.over:
            if self.axis.has(dim):
                raise self.axis.error("a selection needs the scores of every row", Index(dim))
        for self.what, value in values(stage):
            self._check_whole(value, stage.queries | {*stage.over})
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
        before = self.carried.free(f"{state.name}_before")
        carried = Carried(state.name, before, state.name, layout, state.kind)
        self.carried.states.append(carried)
        return carried

    def _layout(self, state: State) -> Layout:
        """What flows in, in the order of the inputs, then what the spec lists."""
        flowing = state.dims - set(state.listed)
        return tuple((dim,) for dim in (*self.carried.ordered(flowing), *state.listed))

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
                return call("add", expr, self.carried.rows_before())
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

    def _sum(self, cumsum: Cumsum) -> Expr:
        if cumsum.reverse:
            raise self.axis.error("a running sum from the end needs every row", cumsum)
        self._check_own(cumsum.x, cumsum)
        inner = self(cumsum.x)
        key = (cumsum.x, cumsum.over)
        if key not in self.carried.sums:
            kept = self.carried.ordered(inner.axes - {cumsum.over})
            layout = tuple((dim,) for dim in kept)
            carried = self.carried.value(self._stem(cumsum.x), "sum", layout, sum_kind(inner))
            self.carried.sums[key] = Sum(carried, inner, cumsum.x, cumsum.over)
        return call("add", self.carried.sums[key].before, replace(cumsum, x=inner))

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
        place = expression(linear(call("sub", self(index), self.carried.rows_before())))
        here = Read(rows.value, (*rest, (dim, place)), read.fill, span=read.span)
        behind = expression(linear(call("add", place, Size(rows.back))))
        earlier = Read(rows.before, (*rest, (rows.back, behind)), read.fill, span=read.span)
        return call("where", call("ge", place, 0), here, earlier, span=read.span)

    def _last_rows(self, read: Read, dim: str, length: Expr) -> Rows:
        key = (read.x, dim, read.fill)
        if key not in self.carried.rows:
            inner = self(read.x)
            back = self.carried.free_dim("Back")
            layout = tuple((back,) if d == dim else (d,) for d in self.carried.ordered(inner.axes))
            carried = self.carried.value(self._stem(read.x), "rows", layout, inner.kind)
            self.carried.rows[key] = Rows(carried, inner, read.x, dim, back, read.fill, [])
        if length not in self.carried.rows[key].lengths:
            self.carried.rows[key].lengths.append(length)
        return self.carried.rows[key]

    def _check_own(self, x: Expr, term: Expr) -> None:
        """A step's own names have no rows but the one that is being made."""
        for node in walk(x):
            if isinstance(node, Ref) and node.name in self.own:
                raise self.axis.error(f"{node.name} is made row by row", term)

    def _stem(self, x: Expr) -> str:
        return x.name if isinstance(x, Ref) else self.what


__all__ = ["Carried", "Continued", "continue_sequence"]
