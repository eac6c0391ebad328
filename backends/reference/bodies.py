"""The body of a loop, and what of it holds for all rows at once.

A term that no name of the body, and no state, takes part in is computed before the loop, whole:
where it moves along the loop's axis (a read of the row before, a running sum), because that is
what it means, and else where it takes no more memory than what it is made of, because that is
quicker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from ...ir.errors import UnsupportedError
from ...ir.expression import Cumsum, Expr, Read, Reduce, Ref, Solve
from ...ir.mixer import Equation, Line, Rounds, State, assignments
from ...ir.rewriting import every_node


@dataclass(frozen=True)
class Body:
    """The lines of a loop over ``over``; of nested loops, their bodies.

    ``ahead`` are lines, and ``fixed`` terms of the other lines, that are computed before the loop;
    ``read`` are the names from outside that the rest mentions; ``own`` the names that the loop
    makes, whole.
    """

    over: str
    lines: tuple[Equation | Body, ...]
    states: Mapping[str, State]
    reset: Expr | None
    own: Mapping[str, Ref]
    ahead: tuple[Equation, ...]
    fixed: tuple[Expr, ...]
    read: frozenset[str]


def body_of(
    over: str,
    step: Sequence[Line],
    states: Mapping[str, State],
    sizes: Mapping[str, int],
    reset: Expr | None = None,
) -> Body:
    """The body of a loop, at given sizes.

    Raises:
        UnsupportedError: a term reads other rows of what its own row makes.
    """
    made = tuple(assignments(tuple(step)))
    names = [equation.name for equation, _ in made]
    search = _Search(over, frozenset(names) | states.keys(), states, sizes)
    ahead = []
    for line in step:
        if isinstance(line, Equation) and names.count(line.name) == 1 and search.is_ahead(line):
            ahead.append(line)
    kept = [line for line in step if line not in ahead]
    values = [equation.value for equation, _ in assignments(tuple(kept))]
    for value in [*values, *([] if reset is None else [reset])]:
        search.visit(value)
    lines = tuple(
        body_of(line.over, line.step, states, {**sizes, over: 1})
        if isinstance(line, Rounds)
        else line
        for line in kept
    )
    own = {
        e.name: Ref(e.name, e.value.axes | {over, *rounds}, e.value.kind)
        for e, rounds in made
        if e.name not in states
    }
    fixed, read = tuple(search.fixed.values()), frozenset(search.read)
    return Body(over, lines, states, reset, own, tuple(ahead), fixed, read)


@dataclass
class _Search:
    """One walk over the lines; every node is visited once, however many share it."""

    over: str
    made: frozenset[str]
    states: Mapping[str, State]
    sizes: Mapping[str, int]
    varying: dict[int, bool] = field(default_factory=dict)
    fixed: dict[int, Expr] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)

    def is_ahead(self, line: Equation) -> bool:
        """Whether a line, the only one that makes its name, is computed ahead; then it is known."""
        if line.name in self.states or self.varies(line.value):
            return False
        if not self.is_cheap(line.value):
            return False
        self.made -= {line.name}
        self.varying.clear()
        return True

    def varies(self, expr: Expr) -> bool:
        """Whether a name that the loop makes takes part."""
        if id(expr) not in self.varying:
            own = isinstance(expr, Ref) and expr.name in self.made
            self.varying[id(expr)] = own or any([self.varies(c) for c in expr.children])
        return self.varying[id(expr)]

    def visit(self, expr: Expr) -> None:
        """Take note of what is computed ahead, below ``expr`` and with it."""
        if id(expr) in self.seen:
            return
        self.seen.add(id(expr))
        if isinstance(expr, Ref):
            self.read |= {expr.name} - self.made
        elif not self.varies(expr) and self.is_cheap(expr):
            self.fixed[id(expr)] = expr
        elif moves(expr, self.over):
            raise UnsupportedError(
                f"{expr} reads other rows of {self.over} than its own, of what the step makes"
            )
        else:
            for child in expr.children:
                self.visit(child)

    def is_cheap(self, expr: Expr) -> bool:
        """Whether a term moves along the axis, or is no larger than what it is made of."""
        if self.over not in expr.axes or any(moves(node, self.over) for node in every_node([expr])):
            return True
        largest = max(
            (self.elements(n) for n in every_node([expr]) if isinstance(n, Ref)), default=0
        )
        return all(self.elements(node) <= largest for node in every_node([expr]))

    def elements(self, expr: Expr) -> int:
        """How many numbers the value of a term has."""
        return prod(self.sizes[dim] for dim in expr.axes)


def moves(expr: Expr, over: str) -> bool:
    """Whether a row of a term depends on other rows of its parts."""
    match expr:
        case Read(x, at):
            return any(dim == over for dim, _ in at) and over in x.axes
        case Reduce(group=group):
            return over in expr.over or any(dim == over for dim, _ in group)
        case Cumsum():
            return expr.over == over
        case Solve(_, _, left, right):
            return over in (left, right)
        case _:
            return False
