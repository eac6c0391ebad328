"""The order of a tile's axes in local arrays, decided once for a whole program.

The last axis of a tile is the one along vectors. A dot's result [rows, columns] wants columns in
vectors; its operand with the columns must then lie with them last, while the other operand is read
number by number and may lie anyhow. So what matters is which operand is fresh from memory the
wrong way round, how deep in loops, and along which axis reductions run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

from ...ir.tile import (
    Combine,
    Dot,
    For,
    Load,
    Op,
    Program,
    Reduce,
    Rename,
    Scan,
    Store,
    Substitute,
    Value,
    all_ops,
    made_by,
    operands,
)

Order = tuple[str, ...]
Loads = Mapping[str, tuple[Load, int]]  # by what they make: the load, and how often it is done
_IMPOSSIBLE = 1 << 20
_FEW = 5  # axes of which every order is tried
_DEEPER = 8  # how much more an op weighs for each loop around it


@dataclass(frozen=True)
class Layout:
    """``order`` ranks the axes; the last of a value's axes lies along vectors."""

    order: Order

    def of(self, value: Value) -> Order:
        """The value's axes as its array has them."""
        return self.sort(value.axes)

    def sort(self, axes: frozenset[str]) -> Order:
        """Axes in array order."""
        return tuple(a for a in self.order if a in axes)


@dataclass(frozen=True, slots=True)
class DotOperands:
    """A dot as out[row, column] = sum over k of left[row, k] * right[k, column]."""

    left: Value
    right: Value
    row: str
    column: str


def dot_operands(dot: Dot, layout: Layout) -> DotOperands:
    """Which operand of a dot is read in vectors: the one with the result's last axis."""
    row, column = layout.of(dot.out)
    if column in dot.b.axes:
        return DotOperands(dot.a, dot.b, row, column)
    return DotOperands(dot.b, dot.a, row, column)


def choose_layout(program: Program, lanes: int, tiled: frozenset[str] = frozenset()) -> Layout:
    """The order of the least cost; among equals, the first in the order that tiles are declared.

    ``tiled``: what dots of tiles make, by name. They read rows on the left.
    """
    narrow = frozenset(t.dim for t in program.tiles if t.block % lanes)
    ops = list(_weighted(program.body, 1))
    loads = {op.out.name: (op, weight) for op, weight in ops if isinstance(op, Load)}
    packed = _only_read_by_dots(program)
    ops = [pair for pair in ops if not (isinstance(pair[0], Load) and pair[0].out.name in packed)]

    def cost(order: Order) -> int:
        layout = Layout(order)
        return sum(_cost(op, weight, layout, narrow, loads, tiled) for op, weight in ops)

    axes = tuple(t.dim for t in program.tiles)
    if len(axes) <= _FEW:
        return Layout(min(permutations(axes), key=cost))
    return Layout(_improved(axes, cost))


def _improved(order: Order, cost: Callable[[Order], int]) -> Order:
    """An order that no move of one axis makes better."""
    while True:
        moves = [
            (*rest[:place], axis, *rest[place:])
            for axis in order
            for rest in [tuple(a for a in order if a != axis)]
            for place in range(len(order))
        ]
        best = min(moves, key=cost)
        if cost(best) >= cost(order):
            return order
        order = best


def _only_read_by_dots(program: Program) -> set[str]:
    read = {
        value.name
        for op in all_ops(program.body)
        for value in operands(op)
        if not isinstance(op, Dot) or value is op.acc
    }
    return {op.out.name for op in all_ops(program.body) if isinstance(op, Load)} - read


def _weighted(ops: tuple[Op, ...], weight: int) -> Iterator[tuple[Op, int]]:
    for op in ops:
        yield op, weight
        if isinstance(op, For):
            yield from _weighted(op.body, weight * _DEEPER)


def _cost(
    op: Op,
    weight: int,
    layout: Layout,
    narrow: frozenset[str],
    loads: Loads,
    tiled: frozenset[str],
) -> int:
    for value in () if isinstance(op, For) else made_by(op):
        if len(value.axes) > 1 and layout.of(value)[-1] in narrow:
            return weight * (_IMPOSSIBLE if isinstance(op, Dot) else 8)
    match op:
        case Dot():
            return _cost_of_operands(op, weight, layout, loads, op.out.name in tiled)
        case Reduce(_, _, x, over) if len(x.axes) > 1:
            return weight * 2 * (layout.of(x)[-1] == over)
        case Scan(_, x, over) | Combine(_, (x, *_), over) if len(x.axes) > 1:
            return weight * 8 * (layout.of(x)[-1] == over)
        case Rename(out) if len(out.axes) > 1:
            return weight * 4 * (not is_alias(op, layout))
        case Substitute(out, rows=rows) if len(out.axes) > 1:
            return weight * 8 * (layout.of(out)[0] != rows)
        case Load(out) if len(out.axes) > 1:
            return weight * 3 * (contiguous(op) != layout.of(out)[-1])
        case Store(_, _, value) if len(value.axes) > 1:
            return weight * 3 * (contiguous(op) != layout.of(value)[-1])
    return 0


def _cost_of_operands(dot: Dot, weight: int, layout: Layout, loads: Loads, tiled: bool) -> int:
    """What it costs to turn operands round: those from memory once for each load, not each dot."""
    operands = dot_operands(dot, layout)
    total = 0
    if operands.left.name in loads:
        left, once = loads[operands.left.name]
        price = once * 8 if tiled else weight * 2
        total += price * (contiguous(left) == operands.row)
    elif tiled:  # dearer than to turn what is loaded, which a longer block of rows shares
        total += weight * 12 * (layout.of(operands.left)[-1] != dot.over)
    if operands.right.name not in loads:
        return total + weight * 8 * (layout.of(operands.right)[0] != dot.over)
    right, once = loads[operands.right.name]
    return total + once * 8 * (contiguous(right) == dot.over)


def is_alias(op: Rename, layout: Layout) -> bool:
    """Whether an array has its axes in order under the new name too."""
    return layout.of(op.out) == tuple(op.to if a == op.axis else a for a in layout.of(op.x))


def contiguous(op: Load | Store) -> str | None:
    """The axis along which neighbours in memory lie, if the buffer is in its declared order."""
    last = op.index[-1][1].axes
    return next(iter(last)) if len(last) == 1 else None
