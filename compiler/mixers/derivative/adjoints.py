"""What a backward pass has found so far: the adjoint of each name, and the stages that make them.

The adjoint of a value is the derivative of the loss by it: ``d_q`` for ``q``. It has the axes of
the value or fewer, and is then the same along those that it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce

from ....ir.expression import Expr, Ref, Size, call
from ....ir.mixer import Attention, Equation, Map, Recurrence, Stage
from ....ir.rewriting import with_names
from ....ir.stages import changed, unused_name
from ...analysis.gradients.derivatives import along
from ...analysis.gradients.partials import ZERO, add


@dataclass
class Adjoints:
    """The adjoints of a mixer's names, in the making, from the last name to the first."""

    taken: set[str]
    active: frozenset[str]  # names that depend on what a gradient is wanted of
    found: dict[str, Expr] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    waiting: list[Equation] = field(default_factory=list)  # of the map that comes next
    sizes: dict[str, Expr] = field(default_factory=dict)  # of axes that the mixer has not
    finals: set[str] = field(default_factory=set)  # outputs already: no other name may take theirs

    def unused(self, name: str) -> str:
        """A name like ``name`` that means nothing yet, and from now on is taken."""
        return unused_name(name, self.taken)

    def product(self, dims: Sequence[str]) -> str:
        """The axis that counts the positions of several."""
        factors: list[Expr] = [Size(dim) for dim in dims]
        size = reduce(partial(call, "mul"), factors)
        known = next((axis for axis, own in self.sizes.items() if own == size), None)
        if known is None:
            known = self.unused("_".join(dims))
            self.taken.add(known.lower())
            self.sizes[known] = size
        return known

    def add(self, parts: Mapping[str, Expr]) -> None:
        """Add to the adjoints of some names."""
        for name, part in parts.items():
            if part != ZERO:
                self.found[name] = add(self.found.get(name), part)

    def of(self, name: str) -> Expr | None:
        """The whole adjoint of a name, under a name of its own; None where nothing depends on it.

        Precondition: every value that reads the name has been gone through.
        """
        value = self.found.get(name)
        if value is None or isinstance(value, Ref):
            return value
        self.found[name] = self.named(f"d_{name}", value)
        return self.found[name]

    def named(self, name: str, value: Expr) -> Ref:
        """A value that is computed once, by the next map."""
        equation = Equation(self.unused(name), value)
        self.waiting.append(equation)
        return equation.ref

    def final(self, name: str, axes: frozenset[str]) -> Ref | None:
        """The whole adjoint of an input along ``axes``, under the name ``d_`` + its own, for an
        output."""
        value = self.found.get(name)
        if value is None:
            return None
        for dim in sorted(axes - value.axes):
            value = along(value, dim)
        if not isinstance(value, Ref) or value.name not in self._by_stages() - self.finals:
            return self.named(f"d_{name}", value)
        new = replace(value, name=self.unused(f"d_{name}"))
        self.stages = [_renamed(stage, value.name, new) for stage in self.stages]
        self.waiting = [
            replace(e, value=with_names(e.value, {value.name: new})) for e in self.waiting
        ]
        self.found = {n: with_names(v, {value.name: new}) for n, v in self.found.items()}
        self.finals.add(new.name)
        return new

    def _by_stages(self) -> set[str]:
        """The rows that attentions and recurrences make for all positions."""
        found: set[str] = set()
        for stage in self.stages:
            match stage:
                case Attention():
                    found |= {output.name for output in stage.outputs}
                case Recurrence():
                    found |= {ref.name for ref in stage.own}
        return found

    def stage(self, stage: Stage) -> None:
        """A stage that reads what has been named so far."""
        self.close()
        self.stages.append(stage)

    def close(self) -> None:
        """End the map that is waiting."""
        if self.waiting:
            self.stages.append(Map(tuple(self.waiting)))
            self.waiting = []


def _renamed(stage: Stage, old: str, new: Ref) -> Stage:
    """The stage with another name for one of its results."""
    stage = changed(stage, lambda value: with_names(value, {old: new}))
    match stage:
        case Attention(outputs=outputs):
            made = tuple(replace(o, name=new.name) if o.name == old else o for o in outputs)
            return replace(stage, outputs=made)
        case Recurrence(step=step):
            lines = tuple(
                replace(line, name=new.name)
                if isinstance(line, Equation) and line.name == old
                else line
                for line in step
            )
            return replace(stage, step=lines)
        case _:
            return stage


__all__ = ["Adjoints"]
