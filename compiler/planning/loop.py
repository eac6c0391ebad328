"""The kernels of a recurrence by the loop schedule: what is free of states first, then the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ...ir.expression import Expr, Index, Read, Ref
from ...ir.mixer import Recurrence
from ...ir.recurrence_tasks import Carrying, LoopTask, line_values
from ...ir.rewriting import walk, with_names
from ...ir.single_assignment import Handed, Repeated, Step, Version
from ..analysis.recurrence.versions import versions
from .joined_axes import JoinedAxes
from .recurrence_context import RecurrenceContext, reads


@dataclass
class LoopPlan:
    """A recurrence, its names inlined, row by row in one kernel."""

    context: RecurrenceContext
    stage: Recurrence
    written: dict[str, Expr] = field(default_factory=dict)  # versions that are no values of a row
    states: set[str] = field(default_factory=set)  # versions that come about row by row

    def run(self) -> None:
        """Plan it, and make its results known to later stages."""
        context, step = self.context, versions(self.stage)
        self.states = {ref.name for _, ref in step.before}
        self.read_elsewhere = {*_read_elsewhere(step.lines)}
        self.joined = JoinedAxes(context.builder.mixer, context.builder.fixed)
        lines = self._without_free(step.lines)
        own = []
        for name, ref in step.own:
            value = self.written.get(ref.name)
            if value is not None and not reads(value, frozenset(self.states)):
                context.builder.names[name] = context.builder.named(name, value)
            elif name in context.used:
                own.append((context.declare(name, ref.kind), ref if value is None else value))
        states = tuple(self._carrying(step, name) for name, _ in step.before)
        if own or any(state.last for state in states):
            self._kernel(tuple(lines), states, tuple(own))

    def _without_free(self, lines: Sequence[Version | Repeated]) -> list[Version | Repeated]:
        """The lines of the loop; those that no state goes into are inlined where read."""
        names = {state.name for state in self.stage.states}
        kept: list[Version | Repeated] = []
        for line in lines:
            match line:
                case Version(ref, name, value):
                    value = self.joined.apart(with_names(value, self.written))
                    by_row = name in names or reads(value, frozenset(self.states))
                    if by_row:
                        value = self.context.materialised(value, self.states)
                        self.states.add(ref.name)
                    apart = ref.name in self.read_elsewhere or ref.axes & self.joined.parts.keys()
                    if name in names or (by_row and not apart):
                        kept.append(Version(ref, name, value))
                    else:
                        self.written[ref.name] = self.context.builder.named(name, value)
                case Repeated():
                    kept.append(self._repeated(line))
        return kept

    def _repeated(self, rounds: Repeated) -> Repeated:
        self.states |= {h.start.name for h in rounds.states}
        body = self._without_free(rounds.lines)
        changed = tuple(
            Handed(self._value(h.before), h.start, self._value(h.end), h.after)
            for h in rounds.states
        )
        self.states |= {h.after.name for h in rounds.states}
        for made, whole in rounds.own:
            value = self.written.get(made.name)
            if value is None or reads(value, frozenset(self.states)):
                self.states.add(whole.name)  # an error only where it is read
                self.written[whole.name] = whole
            else:
                self.written[whole.name] = value
        return Repeated(rounds.over, tuple(body), changed, ())

    def _value(self, expr: Expr) -> Expr:
        return self.context.materialised(with_names(expr, self.written), self.states)

    def _carrying(self, step: Step, name: str) -> Carrying:
        state = next(s for s in self.stage.states if s.name == name)
        after = with_names(dict(step.after)[name], self.written)
        return replace(self.context.carrying(state), after=after)

    def _kernel(
        self,
        lines: tuple[Version | Repeated, ...],
        states: tuple[Carrying, ...],
        own: tuple[tuple[str, Expr], ...],
    ) -> None:
        builder, over = self.context.builder, self.stage.over
        results = tuple(n for n, _ in own) + tuple(s.last for s in states if s.last)
        task = LoopTask(
            builder.kernel_name(results[0]),
            over,
            self.stage.reverse,
            lines,
            states,
            own,
            (),
            (),
            f"{', '.join(results)}: row by row along {over}",
            "the recurrence itself",
        )
        builder.tasks.append(self.context.placed(task))


def _read_elsewhere(lines: Sequence[Version | Repeated]) -> Iterator[str]:
    """Versions that some line reads at other positions than a row's own, ``a[K=1]``."""
    for node in (node for value in line_values(lines) for node in walk(value)):
        if isinstance(node, Read) and isinstance(node.x, Ref):
            computed = any(not isinstance(index, Index) for _, index in node.at)
            yield from [node.x.name] * computed
