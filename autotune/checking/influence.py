"""How the states of a recurrence act on the states of the next row."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...ir.expression import Call, Cumsum, Expr, Read, Reduce, Ref, Solve, call
from ...ir.mixer import Equation, Line, Recurrence, Rounds

# A step with more ways than this from state to state is followed no further.
_MOST = 512


@dataclass(frozen=True)
class Way:
    """A way from a state to a value: what it is multiplied by, and the axes it is summed over.

    ``factors`` are places in ``Influence.terms``. Functions on the way are left out: those that
    recurrences put around a state rise by 1 at most.
    """

    state: str
    factors: frozenset[int] = frozenset()
    summed: frozenset[str] = frozenset()

    def times(self, factor: int) -> Way:
        """The way with one factor more."""
        return Way(self.state, self.factors | {factor}, self.summed)

    def over(self, dims: frozenset[str]) -> Way:
        """The way with a sum more."""
        return Way(self.state, self.factors, self.summed | dims)


@dataclass
class Influence:
    """The ways from the states of one row into each name of the step, its latest value."""

    ways: dict[str, frozenset[Way]]
    values: dict[str, list[Expr]] = field(default_factory=dict)  # own names, and what they were
    terms: list[Expr] = field(default_factory=list)
    done: dict[int, frozenset[Way]] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: Recurrence) -> Influence:
        """From the start of a row to its end."""
        made = cls({state.name: frozenset({Way(state.name)}) for state in stage.states})
        made._lines(stage.step)
        return made

    def _lines(self, lines: tuple[Line, ...]) -> None:
        for line in lines:
            match line:
                case Equation(name, value):
                    self.done.clear()
                    self.ways[name] = self.into(value)
                    self.values.setdefault(name, []).append(value)
                case Rounds(_, step):
                    self._lines(step)

    def into(self, expr: Expr) -> frozenset[Way]:
        """The ways from the states into a term."""
        if id(expr) not in self.done:
            found = self._into(expr)
            self.done[id(expr)] = found if len(found) <= _MOST else frozenset(list(found)[:_MOST])
        return self.done[id(expr)]

    def _into(self, expr: Expr) -> frozenset[Way]:
        match expr:
            case Ref(name):
                return self.ways.get(name, frozenset())
            case Call("mul", (a, b)):
                return self._times(a, b) | self._times(b, a)
            case Call("div", (a, b)):
                return self._times(a, b, inverse=True)
            case Call("where", (_, a, b)):
                return self.into(a) | self.into(b)
            case Call("lt" | "le" | "gt" | "ge" | "eq" | "ne" | "detach"):
                return frozenset()
            case Reduce("sum", x, over):
                return frozenset(way.over(frozenset(over)) for way in self.into(x))
            case Read(x) | Cumsum(x):
                return self.into(x)
            case Solve():
                return frozenset()
            case _:
                return frozenset[Way]().union(*(self.into(c) for c in expr.children))

    def _times(self, x: Expr, factor: Expr, inverse: bool = False) -> frozenset[Way]:
        ways = self.into(x)
        for part in _parts(factor) if ways and not inverse else [factor]:
            place = self._place(part, inverse)
            ways = frozenset(way.times(place) for way in ways)
        return ways

    def _place(self, factor: Expr, inverse: bool) -> int:
        if id(factor) not in self.places:
            self.places[id(factor)] = len(self.terms)
            self.terms.append(call("div", 1.0, factor) if inverse else factor)
        return self.places[id(factor)]

    def feedback(self) -> dict[str, frozenset[str]]:
        """The states that come back to a state, each of them in one row or after several."""
        froms = {name: {way.state for way in ways} for name, ways in self.ways.items()}
        for _ in froms:
            for name, found in froms.items():
                froms[name] = found.union(*(froms[other] for other in found))
        return {
            name: frozenset(other for other in found if name in froms[other])
            for name, found in froms.items()
        }


def _parts(expr: Expr) -> list[Expr]:
    match expr:
        case Call("mul", (a, b)):
            return [*_parts(a), *_parts(b)]
        case _:
            return [expr]
