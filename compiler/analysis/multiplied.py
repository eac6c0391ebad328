"""Which inputs are the factors of a mixer's matrix products: what autocast means for it.

``q``, ``k`` and ``v`` of an attention, and what a recurrence adds to a state of several axes or
reads it with. A gate in an exponential, a slope, a bias, a logit are not: 16 bits of a decay's
logarithm are lost for all rows that follow, and they are few.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ...ir.expression import Call, Cumsum, Expr, Kind, Read, Reduce, Ref, Solve
from ...ir.mixer import Attention, Map, Mixer, Recurrence, Select, Stage, assignments

_LINEAR = frozenset("add sub mul div neg where".split())
_NONE: frozenset[str] = frozenset()


def multiplied_inputs(mixer: Mixer) -> frozenset[str]:
    """The real inputs, without a dtype of their own, that only products are made of."""
    real = {i.name for i in mixer.inputs if i.kind is Kind.REAL and i.dtype is None}
    search = _Search({name: frozenset({name}) for name in real})
    for equation in mixer.lets:
        search.names[equation.name] = search.linear(equation.value)
    for stage in mixer.stages:
        search.stage(stage)
    return frozenset(search.factors - search.others)


@dataclass
class _Search:
    """``names``: the inputs that a name is a linear function of."""

    names: dict[str, frozenset[str]]
    factors: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)  # arguments of other functions

    def stage(self, stage: Stage) -> None:
        match stage:
            case Map(equations):
                for equation in equations:
                    self.names[equation.name] = self.linear(equation.value)
            case Attention():
                self.others |= self.linear(stage.score)
                self.others |= _NONE if stage.sink is None else self.linear(stage.sink)
                for output in stage.outputs:
                    self.factors |= self.linear(output.value)
            case Select():
                self.others |= self.linear(stage.score)
            case Recurrence():
                for equation, _ in assignments(stage.step):
                    found = self.linear(equation.value)
                    if any(equation.name == state.name for state in stage.states):
                        self.factors |= found
                    else:
                        self.names[equation.name] = found

    def linear(self, value: Expr) -> frozenset[str]:
        """The inputs that a value is made of by sums and products alone, not yet summed."""
        match value:
            case Ref(name):
                return self.names.get(name, _NONE)
            case Reduce("sum" | "mean", x):
                found = self.linear(x)
                if isinstance(x, Call) and x.fn == "mul":
                    self.factors |= found
                    return _NONE
                return found
            case Solve(matrix, vector):
                self.factors |= self.linear(matrix) | self.linear(vector)
                return _NONE
            case Read(x) | Cumsum(x):
                return self.linear(x)
            case Call("where", (_, *args)):
                return self._union(args)
            case Call(fn, args) if fn in _LINEAR:
                return self._union(args)
        self.others |= self._union(value.children)
        return _NONE

    def _union(self, values: Iterable[Expr]) -> frozenset[str]:
        return _NONE.union(*(self.linear(value) for value in values))


__all__ = ["multiplied_inputs"]
