"""What a row of a scan computes, in the order that takes the fewest operations of a tile.

    delta * Bt * x --> (delta * x) * Bt                 a product of fewer axes comes first
    exp(delta * A) --> exp2(delta * (A * log2(e)))      A, the same in each row, is scaled once
    sigmoid(x) --> 1 / (1 + exp2(-x * log2(e)))

A GPU has an instruction for 2 ** x: exp takes three more, to scale what it is given and what comes
out where that is smaller than any normal number.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from itertools import combinations

from ...ir.expression import Call, Expr, Literal, call
from ...ir.recurrence_tasks import ScanTask
from ...ir.rewriting import transform
from ..tiles.context import Context

_LOG2_E = math.log2(math.e)


def with_cheap_rows(task: ScanTask, context: Context) -> tuple[ScanTask, Context]:
    """The task with its rows' terms so, and the context with their names."""
    terms = _Terms(task.over, frozenset(task.positions))
    forms = tuple(
        replace(
            form,
            coefficients=tuple(tuple(map(terms.cheap, row)) for row in form.coefficients),
            offsets=tuple(map(terms.cheap, form.offsets)),
        )
        for form in task.forms
    )
    own = tuple((name, terms.of(value)) for name, value in task.own)
    names = {terms.of(expr): name for expr, name in context.names.items()}
    return replace(task, forms=forms, own=own), replace(context, names={**context.names, **names})


class _Terms:
    """The rewrite; ``places`` are the axes of which a program has one position."""

    def __init__(self, rows: str, places: frozenset[str]) -> None:
        self.rows, self.places = rows, places

    def cheap(self, expr: Expr | None) -> Expr | None:
        """A term of a row, where there is one."""
        return None if expr is None else self.of(expr)

    def of(self, expr: Expr) -> Expr:
        """The same value by cheaper operations."""
        return transform(expr, self._changed)

    def _changed(self, node: Expr) -> Expr | None:
        match node:
            case Call("exp", (x,)) if self.rows in x.axes:
                return call("exp2", self._product([*_factors(x), Literal(_LOG2_E)]))
            case Call("sigmoid", (x,)) if self.rows in x.axes:
                power = call("exp2", self._product([*_factors(x), Literal(-_LOG2_E)]))
                return call("div", 1.0, call("add", 1.0, power))
            case Call("mul"):
                made = self._product(_factors(node))
                return made if self._cost(made) < self._cost(node) else None
        return None

    def _product(self, factors: list[Expr]) -> Expr:
        """The product, numbers together, those of the fewest axes first."""
        numbers = [f.value for f in factors if isinstance(f, Literal)]
        rest = [f for f in factors if not isinstance(f, Literal)]
        if numbers and (number := reduce(lambda a, b: a * b, numbers)) != 1:
            rest.append(Literal(float(number)))
        while len(rest) > 1:
            pairs = combinations(range(len(rest)), 2)
            i, j = min(pairs, key=lambda pair: self._size(rest[pair[0]], rest[pair[1]]))
            rest[i : i + 1] = [call("mul", rest[i], rest.pop(j))]
        return rest[0] if rest else Literal(1.0)

    def _size(self, *factors: Expr) -> tuple[int, bool]:
        """How many axes a product has on the tile; what is the same in each row goes first."""
        axes = frozenset[str]().union(*(f.axes for f in factors)) - self.places
        return len(axes), self.rows in axes

    def _cost(self, expr: Expr) -> int:
        """Axes of all products of a product, together."""
        match expr:
            case Call("mul", (a, b)):
                return self._size(expr)[0] + self._cost(a) + self._cost(b)
        return 0


def _factors(expr: Expr) -> list[Expr]:
    match expr:
        case Call("mul", (a, b)):
            return _factors(a) + _factors(b)
        case _:
            return [expr]
