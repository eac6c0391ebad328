"""The order of a tile's axes in registers, decided once for a whole program.

A dot wants its left operand as (row, shared) and its right one as (shared, column). What is fresh
from memory can be read either way round; what lives in registers should never be transposed. So
the order is the one, of all orders of the program's tiled axes, that transposes least.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

from ...ir.tile import Dot, Load, Op, Program, Value, all_ops, operands

Order = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """``order`` ranks the axes; ``loads`` are the loaded tiles that are read otherwise."""

    order: Order
    loads: dict[str, Order]

    def of(self, value: Value) -> Order:
        """The value's axes as its tile has them."""
        return self.loads.get(value.name, self.sort(value.axes))

    def sort(self, axes: frozenset[str]) -> Order:
        """Axes in register order."""
        return tuple(a for a in self.order if a in axes)


def dot_operands(dot: Dot, order: Order) -> tuple[tuple[Value, Order], tuple[Value, Order]]:
    """Left and right operand with the order that each must have, for a result in ``order``."""
    a, b = dot.a, dot.b
    (row,) = a.axes - {dot.over}
    (column,) = b.axes - {dot.over}
    if order.index(row) > order.index(column):
        a, b, row, column = b, a, column, row
    return (a, (row, dot.over)), (b, (dot.over, column))


def choose_layout(program: Program) -> Layout:
    """The layout of a program: fewest transposes first, then the order of the grid and loops."""
    ops = list(all_ops(program.body))
    dots = [op for op in ops if isinstance(op, Dot)]
    preferred = _preferred_order(program)
    if not dots:
        return Layout(preferred, {})
    flexible = _only_read_by_dots(ops)

    def cost(order: Order) -> int:
        return sum(
            value.name not in flexible and wanted != tuple(a for a in order if a in value.axes)
            for dot in dots
            for value, wanted in dot_operands(dot, order)
        )

    # Keep the axes that no dot touches at the end, and permute only the others.
    touched = frozenset[str]().union(*(d.a.axes | d.b.axes for d in dots))
    rest = tuple(a for a in preferred if a not in touched)
    choices = permutations([a for a in preferred if a in touched])
    order = min((c + rest for c in choices), key=cost)
    loads = {
        value.name: wanted
        for dot in reversed(dots)
        for value, wanted in dot_operands(dot, order)
        if value.name in flexible
    }
    return Layout(order, loads)


def _preferred_order(program: Program) -> Order:
    tiled = [g.dim for g in program.grid if g.tiled]
    whole = [t.dim for t in program.tiles if t.whole]
    looped = [t.dim for t in program.tiles if not t.whole and t.dim not in tiled]
    return (*tiled, *looped, *whole)


def _only_read_by_dots(ops: list[Op]) -> frozenset[str]:
    """Loaded tiles that nothing but dots reads."""
    loaded = {op.out.name for op in ops if isinstance(op, Load) and len(op.out.axes) == 2}
    for op in ops:
        elsewhere = operands(op)[2:] if isinstance(op, Dot) else operands(op)
        loaded -= {value.name for value in elsewhere}
    return frozenset(loaded)
