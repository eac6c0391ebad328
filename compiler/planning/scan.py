"""The kernel of a recurrence whose states are all affine over semirings: a parallel scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

from ...ir.expression import TRANSCENDENTAL, Call, Expr, Kind, Ref
from ...ir.mixer import Recurrence, Rounds
from ...ir.recurrence_forms import Affine, Classified, Loop
from ...ir.recurrence_tasks import PLACES, Carrying, ScanTask
from ...ir.rewriting import rebuild, walk, with_names
from ...ir.single_assignment import after_row, before_row
from ...ir.stages import values
from ...ir.targets import CpuTarget
from .recurrence_context import RecurrenceContext, reads

_LANES = 8  # that would compute a value again, for it to be worth its way through the memory
_ONE_OF_A_LANE = {"exp", "exp2", "rsqrt", "sqrt", "sin", "cos"}  # which a GPU has instructions for


def refusal(stage: Recurrence, classified: Classified) -> str | None:
    """Why the scan schedule can't compute a recurrence; None if it can."""
    if any(isinstance(line, Rounds) for line in stage.step):
        return "an inner loop"
    for form in classified.components:
        names = ", ".join(state.name for state in form.states)
        if any(state.kind is not Kind.REAL for state in form.states):
            return f"{names} counts in integers, where a scan has real sums"
        match form:
            case Affine():
                pass
            case Loop():
                return f"{names}: {form.reason}"
            case _:
                return f"{names} is a state of matrices"
    return None


@dataclass
class ScanPlan:
    """A recurrence, its names inlined, as scans in one kernel."""

    context: RecurrenceContext
    stage: Recurrence
    classified: Classified
    by_channel: bool = False

    def run(self) -> None:
        """Plan it, and make its results known to later stages."""
        forms = [form for form in self.classified.components if isinstance(form, Affine)]
        known: dict[str, Expr] = {}
        for state in self.stage.states:
            rows = state.dims | {self.stage.over}
            for ref in (before_row(state, rows), after_row(state, rows)):
                known[ref.name] = ref
        names = frozenset(known)

        def written(expr: Expr) -> Expr:
            return self.context.materialised(with_names(expr, known), names)

        own = []
        for name, value in self.classified.own:
            if reads(value, names):
                if name in self.context.used:
                    own.append((self.context.declare(name, value.kind), written(value)))
            else:
                self.context.builder.names[name] = self.context.builder.named(name, value)
        states = tuple(self.context.carrying(state) for state in self.stage.states)
        if own or any(state.last for state in states):
            made = tuple(_changed(form, written) for form in forms)
            task = self.context.placed(self._task(made, states, tuple(own)))
            self.by_channel = self._is_by_channel(task)
            made = tuple(_changed(form, lambda x: self._once(x, names)) for form in made)
            stored = tuple((name, self._once(value, names)) for name, value in own)
            task = self._task(made, states, stored)
            self.context.builder.tasks.append(self.context.placed(task))

    def _is_by_channel(self, task: ScanTask) -> bool:
        """Whether one warp has all places of a channel: what is made of one number of a row is made
        where that was loaded, before it is passed on to them (``load_ahead``)."""
        context = self.context.builder.context
        places = task.places_of_a_channel(context.sizes, context.heads)
        return places is not None and places <= PLACES

    def _once(self, expr: Expr, names: frozenset[str]) -> Expr:
        """``expr`` with costly functions of a row's channel alone stored: on a GPU each lane that
        has another place of the channel's state would compute them again."""
        builder = self.context.builder
        listed = {d for state in self.stage.states for d in state.listed}
        lanes = prod(builder.context.sizes.get(d, 1) for d in listed - expr.axes)
        if isinstance(builder.target, CpuTarget) or not expr.children:
            return expr
        costly = isinstance(expr, Call) and expr.fn in TRANSCENDENTAL - _ONE_OF_A_LANE
        rows = {x.name for x in walk(expr) if isinstance(x, Ref) and self.stage.over in x.axes}
        if costly and len(rows) == 1 and self.by_channel and self._stages_with(expr) < 2:
            return expr
        if costly and lanes >= _LANES and self.stage.over in expr.axes and not reads(expr, names):
            name, reason = builder.temporary_name(expr), "each place of a state would compute it"
            return builder.stored.get(expr) or builder.store(
                name, expr, None, "temporary", reason, wide=True
            )
        return rebuild(expr, lambda child: self._once(child, names))

    def _stages_with(self, expr: Expr) -> int:
        """How many stages of the mixer compute a value."""
        builder = self.context.builder
        return sum(
            any(expr in walk(builder.inlined(value)) for _, value in values(stage))
            for stage in builder.mixer.stages
        )

    def _task(
        self,
        forms: tuple[Affine, ...],
        states: tuple[Carrying, ...],
        own: tuple[tuple[str, Expr], ...],
    ) -> ScanTask:
        results = tuple(n for n, _ in own) + tuple(s.last for s in states if s.last)
        return ScanTask(
            self.context.builder.kernel_name(results[0]),
            self.stage.over,
            self.stage.reverse,
            forms,
            states,
            own,
            (),
            (),
            about=f"{', '.join(results)}: scanned along {self.stage.over}",
            reason="the recurrence itself",
        )


def _changed(form: Affine, change: Callable[[Expr], Expr]) -> Affine:
    """A form with other coefficients and offsets."""
    rows = form.coefficients
    return replace(
        form,
        coefficients=tuple(tuple(None if c is None else change(c) for c in row) for row in rows),
        offsets=tuple(None if o is None else change(o) for o in form.offsets),
    )
