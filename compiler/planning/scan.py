"""The kernel of a recurrence whose states are all affine over semirings: a parallel scan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...ir.expression import Expr, with_names
from ...ir.mixer import Recurrence, Rounds
from ...ir.names import names_in
from ...ir.recurrence_forms import Affine, Classified, Dense, Loop
from ...ir.recurrence_tasks import Carrying, ScanTask
from ...ir.single_assignment import after_row, before_row
from .recurrence_context import StageRows, reads


def refusal(stage: Recurrence, classified: Classified) -> str | None:
    """Why the scan schedule can't compute a recurrence; None if it can."""
    if any(isinstance(line, Rounds) for line in stage.step):
        return "an inner loop"
    for form in classified.components:
        match form:
            case Affine():
                pass
            case Loop(states, _, _, reason):
                names = ", ".join(state.name for state in states)
                return f"{names}: {reason}"
            case _:
                states = (form.state,) if isinstance(form, Dense) else form.states
                names = ", ".join(state.name for state in states)
                return f"{names} is a state of matrices"
    return None


@dataclass
class ScanPlan:
    """A recurrence, its names written out, as scans in one kernel."""

    rows: StageRows
    stage: Recurrence
    classified: Classified

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
            return self.rows.prepared(with_names(expr, known), names)

        own = []
        for name, value in self.classified.own:
            if reads(value, names):
                if name in self.rows.used:
                    own.append((self.rows.declare(name, value.kind), written(value)))
            else:
                self.rows.work.names[name] = self.rows.work.named(name, value)
        states = tuple(self.rows.carrying(state) for state in self.stage.states)
        if own or any(state.last for state in states):
            made = tuple(
                replace(
                    form,
                    coefficients=tuple(
                        tuple(None if c is None else written(c) for c in row)
                        for row in form.coefficients
                    ),
                    offsets=tuple(None if o is None else written(o) for o in form.offsets),
                )
                for form in forms
            )
            self._kernel(made, states, tuple(own))

    def _kernel(
        self,
        forms: tuple[Affine, ...],
        states: tuple[Carrying, ...],
        own: tuple[tuple[str, Expr], ...],
    ) -> None:
        work, over = self.rows.work, self.stage.over
        results = tuple(n for n, _ in own) + tuple(s.last for s in states if s.last)
        exprs = [*_expressions(forms), *(e for _, e in own)]
        before = names_in(*exprs)
        grid = self.rows.grid(exprs)
        task = ScanTask(
            work.kernel_name(results[0]),
            over,
            self.stage.reverse,
            forms,
            states,
            own,
            frozenset(s.name for s in states if s.before.name in before),
            grid.positions,
            grid.tiled,
            f"{', '.join(results)}: scanned along {over}",
            "the recurrence itself",
        )
        work.tasks.append(task)


def _expressions(forms: tuple[Affine, ...]) -> Iterator[Expr]:
    for form in forms:
        for row in form.coefficients:
            yield from (c for c in row if c is not None)
        yield from (o for o in form.offsets if o is not None)
