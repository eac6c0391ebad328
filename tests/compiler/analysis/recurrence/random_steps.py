"""Random steps: anything that the language allows, whether it makes sense or not."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from mixc.ir.expression import Cumsum, Expr, Index, Kind, Literal, Read, Reduce, Ref, call
from mixc.ir.mixer import Equation, Line, Recurrence, Rounds, State

from .steps import dims

_INPUTS = {"q": "T D", "k": "T D", "v": "T E", "g": "T", "A": "D E", "w": "D", "r": "T R D"}
INPUTS = {name: dims(axes) for name, axes in _INPUTS.items()}
# D and E are as long as each other, so that one may be read at the other's positions.
LENGTHS = {"T": 4, "D": 3, "E": 3, "R": 2}


def random_step(random: Random) -> Recurrence:
    """A step of two to six lines over one to three states."""
    count = random.randint(1, 3)
    states = []
    for number in range(count):
        own = random.choice((("D", "E"), ("D", "E"), ("D",), ()))
        states.append(State(f"S{number}", frozenset(own), Literal(0.5), listed=own))
    writer = _Steps(random, {s.name: s.dims for s in states}, {})
    lines = writer.lines(random.randint(2, 6), inner=random.random() < 0.2)
    reset = None
    if random.random() < 0.2:
        reset = call("gt", Ref("g", dims("T"), Kind.REAL), 0.3)
    return Recurrence("T", tuple(states), lines, reset=reset, reverse=random.random() < 0.3)


class _Steps:
    def __init__(
        self, random: Random, states: dict[str, frozenset[str]], names: dict[str, Expr]
    ) -> None:
        self.random = random
        self.states = states
        self.names = names
        self.made = 0

    def lines(self, count: int, inner: bool) -> tuple[Line, ...]:
        """``count`` lines, the last an own name; with ``inner`` one of them is a loop."""
        lines: list[Line] = []
        place = self.random.randrange(count) if inner else -1
        for number in range(count):
            if number == place:
                names = dict(self.names)
                body = tuple(self.line(True, "R") for _ in range(self.random.randint(1, 2)))
                lines.append(Rounds("R", body))
                self.names = names
            lines.append(self.line(self.random.random() < 0.6))
        lines.append(self.line(False))
        return tuple(lines)

    def line(self, state: bool, rounds: str = "") -> Equation:
        """A line for a state or for an own name."""
        if state:
            name = self.random.choice(list(self.states))
            axes = self.states[name] | {"T"} | ({rounds} if rounds else frozenset())
            value = self.within(self.expression(3, rounds), axes)
            if self.random.random() < 0.5 and self.states[name] == {"D", "E"}:
                k = self.within(self.expression(1, rounds), axes - {"E"})
                value = call("mul", k, self.within(self.expression(2, rounds), axes - {"D"}))
            return Equation(name, call("add", self.decayed(name), value))
        self.made += 1
        value = self.expression(3, rounds)
        name = f"x{self.made}"
        self.names[name] = Ref(name, value.axes, value.kind)
        return Equation(name, value)

    def decayed(self, name: str) -> Expr:
        ref = Ref(name, self.states[name], Kind.REAL)
        gates = [Literal(1), Literal(0.5), Ref("g", dims("T"), Kind.REAL)]
        if "D" in self.states[name]:
            gates.append(call("sigmoid", Ref("k", dims("T D"), Kind.REAL)))
        return call("mul", self.random.choice(gates), ref)

    def within(self, value: Expr, axes: frozenset[str]) -> Expr:
        """The value without the axes that it must not have."""
        extra = tuple(sorted(value.axes - axes))
        return Reduce("sum", value, extra) if extra else value

    def leaf(self, rounds: str) -> Expr:
        inputs = [Ref(n, a, Kind.REAL) for n, a in INPUTS.items() if rounds or "R" not in a]
        states = [Ref(n, a, Kind.REAL) for n, a in self.states.items()]
        pools: Sequence[Sequence[Expr]] = (inputs, states, states, list(self.names.values()))
        pool = self.random.choice([p for p in pools if p])
        return self.random.choice(list(pool))

    def expression(self, depth: int, rounds: str = "") -> Expr:
        if depth == 0 or self.random.random() < 0.2:
            return self.leaf(rounds)
        a = self.expression(depth - 1, rounds)
        kind = self.random.choice(
            "mul mul mul add sub sum sum at max where tanh exp some largest cumsum div".split()
        )
        own = sorted(a.axes & {"D", "E"})
        match kind:
            case "mul" | "add" | "sub" | "max":
                return call(kind, a, self.expression(depth - 1, rounds))
            case "sum" if own:
                return Reduce("sum", a, (self.random.choice(own),))
            case "some" if own:
                where = call("gt", Ref("A", INPUTS["A"], Kind.REAL), 0)
                if set(own) == {"D", "E"}:
                    return Reduce("sum", a, tuple(own), where)
                where = call("gt", Ref("w", INPUTS["w"], Kind.REAL), 0)
                return Reduce("sum", a, ("D",), where) if own == ["D"] else a
            case "largest" if own:
                return Reduce("max", a, (self.random.choice(own),))
            case "cumsum" if own:
                return Cumsum(a, self.random.choice(own), exclusive=True)
            case "div":
                return call("div", a, call("add", call("exp", Ref("g", dims("T"), Kind.REAL)), 1))
            case "at" if own:
                axis = self.random.choice(own)
                other = "E" if axis == "D" else "D"
                if other in a.axes:
                    return Read(a, (("D", Index("E")), ("E", Index("D"))))
                return Read(a, ((axis, Index(other)),))
            case "where":
                other = self.expression(depth - 1, rounds)
                return call("where", call("gt", self.leaf(rounds), 0.1), a, other)
            case "tanh":
                return call("tanh", a)
            case "exp":
                return call("exp", call("neg", call("abs", a)))
        return a
