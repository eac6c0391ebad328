"""Running sums along a packed axis as states, which begin anew with a document.

    c: cumsum(g, T)  -->  recurrence over T: c_sum = c_sum + g; c_row = c_sum

A difference of two running sums of the whole row would be cheaper, but what one document adds
would be in the next one's rounding, and an infinite number (a gate that is shut, as a logarithm)
would be NaN in every later document. Lets that read such a sum are written out where they are
read, for lets come before all stages. Left alone on purpose: sums of integers, which are exact;
sums with a second position among their axes or of what a stage makes inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ....ir.expression import Cumsum, Expr, Kind, Ref
from ....ir.mixer import Attention, Equation, Map, Mixer, Recurrence, Select, Stage
from ....ir.rewriting import rebuild, walk
from ....ir.stages import changed, names_taken, unused_name
from ..running import is_plain, running
from .packing_plan import Families


def sums_as_states(mixer: Mixer, families: Families) -> Mixer:
    """The mixer with a recurrence for each of its running sums along a packed axis."""
    return _SumsAsStates(mixer, families).run()


@dataclass
class _SumsAsStates:
    mixer: Mixer
    families: Families
    rows: dict[Cumsum, Ref] = field(default_factory=dict)
    opened: dict[str, Expr] = field(default_factory=dict)  # lets written out where they are read
    pending: list[Stage] = field(default_factory=list)  # what the next stage reads
    own: frozenset[str] = frozenset()  # names that are made inside the stage
    taken: set[str] = field(init=False)
    stem: str = "running"

    def __post_init__(self) -> None:
        self.taken = names_taken(self.mixer)

    def run(self) -> Mixer:
        lets = tuple(self._lets())
        stages = [*self._pending(), *self._outputs()]
        for stage in self.mixer.stages:
            stages += self._map(stage) if isinstance(stage, Map) else self._other(stage)
        return replace(self.mixer, lets=lets, stages=tuple(stages))

    def __call__(self, expr: Expr) -> Expr:
        if isinstance(expr, Ref):
            return self.opened.get(expr.name, expr)
        expr = rebuild(expr, self)
        return self._row(expr) if isinstance(expr, Cumsum) and self._is_apart(expr) else expr

    def _is_apart(self, cumsum: Cumsum) -> bool:
        """Whether it is a state: real, of one position, and of what is there before the stage."""
        return (
            cumsum.kind is Kind.REAL
            and self.families.positions(cumsum.axes) == [cumsum.over]
            and self.own.isdisjoint(n.name for n in walk(cumsum.x) if isinstance(n, Ref))
        )

    def _row(self, cumsum: Cumsum) -> Ref:
        key = replace(cumsum, span=None)
        if key not in self.rows:
            stages, self.rows[key] = running(
                "add", cumsum.x, cumsum.over, cumsum.reverse, cumsum.exclusive, self._name
            )
            self.pending += stages
        return self.rows[key]

    def _name(self, what: str) -> str:
        return unused_name(f"{self.stem}_{'sum' if what == 'state' else what}", self.taken)

    def _lets(self) -> Iterator[Equation]:
        for let in self.mixer.lets:
            self.stem = let.name
            value = self(let.value)
            made = {row.name for row in self.rows.values()}
            if made.isdisjoint(n.name for n in walk(value) if isinstance(n, Ref)):
                yield replace(let, value=value)
            elif not is_plain(value):
                rows = Equation(unused_name(f"{let.name}_rows", self.taken), value)
                self.pending.append(Map((rows,)))
                self.opened[let.name] = rows.ref
            else:
                self.opened[let.name] = value

    def _outputs(self) -> Iterator[Stage]:
        """The lets that are outputs too, where nothing writes them out."""
        named = (o.name for o in self.mixer.outputs if o.name in self.opened)
        equations = tuple(Equation(name, self.opened[name]) for name in named)
        if equations:
            yield Map(equations)

    def _map(self, stage: Map) -> Iterator[Stage]:
        """A map, cut where a line reads a sum of what the lines before it make."""
        lines: list[Equation] = []
        for line in stage.equations:
            self.stem = line.name
            value = self(line.value)
            if self.pending and lines:
                yield replace(stage, equations=tuple(lines))
                lines = []
            yield from self._pending()
            lines.append(replace(line, value=value))
        yield replace(stage, equations=tuple(lines))

    def _other(self, stage: Attention | Recurrence | Select) -> Iterator[Stage]:
        self.stem = stage.name or "running" if isinstance(stage, Recurrence) else "running"
        self.own = frozenset({ref.name for ref in stage.results} | {"score", "total"})
        made = changed(stage, self)
        self.own = frozenset()
        yield from self._pending()
        yield made

    def _pending(self) -> list[Stage]:
        found, self.pending = self.pending, []
        return found


__all__ = ["sums_as_states"]
