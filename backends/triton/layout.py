"""The order of a tile's axes in registers, decided once for a whole program.

A dot wants its left operand as (row, shared) and its right one as (shared, column); a triangular
system wants rows before columns, and a scan its rows before all: the last axes are dealt out to
lanes, each of which then has all rows. What is fresh from memory can be read either way round; what
lives in registers should never be transposed. So the order is the one, of all orders of the
program's tiled axes, that transposes least.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...ir.tile import (
    Combine,
    Dot,
    Load,
    Op,
    Program,
    Rename,
    Solve,
    Store,
    Substitute,
    Value,
    all_ops,
    operands,
)

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
    flexible = _only_read_by_dots(ops)
    wishes = [wish for op in ops for wish in _wishes(op, flexible)]
    wishes += _in_lanes(program, ops)
    preferred = _preferred_order(program)
    # Keep the axes that nothing wants anywhere at the end, and permute only the others.
    touched = frozenset[str]().union(*(wish.axes for wish in wishes))
    rest = tuple(a for a in preferred if a not in touched)
    order = _cheapest(tuple(a for a in preferred if a in touched), wishes) + rest
    loads = {
        value.name: wanted
        for dot in reversed(dots)
        for value, wanted in dot_operands(dot, order)
        if value.name in flexible
    }
    return Layout(order, loads)


# ------------------------------------------------------------------------------- what is wanted


@dataclass(frozen=True)
class _Wish:
    """``cost`` tells how many tiles an order of ``axes`` turns, in registers or from memory."""

    axes: frozenset[str]
    cost: Callable[[Order], int]


# To read or write a tile the other way round costs next to nothing beside moving registers.
_FROM_MEMORY, _IN_REGISTERS = 1, 1000


def _wishes(op: Op, flexible: frozenset[str]) -> list[_Wish]:
    match op:
        case Load(out, _, index) if out.name not in flexible:
            return _as_in_memory(index)
        case Store(_, index):
            return _as_in_memory(index)
        case Dot(a=a, b=b):
            return [_Wish(a.axes | b.axes, lambda order: _turned_operands(op, order, flexible))]
        case Rename(out, x, axis, to) if len(x.axes) > 1:
            return [_Wish(x.axes | out.axes, lambda order: _turns(x, axis, to, order))]
        case Combine(outs, over=over):
            others = frozenset[str]().union(*(out.axes for out in outs)) - {over}
            return [_Wish(frozenset({over, a}), _wants((over, a))) for a in sorted(others)]
        case Substitute(out, _, _, rows, columns):
            wishes = [_Wish(frozenset({rows, columns}), _wants((rows, columns)))]
            return wishes + [
                _Wish(frozenset({rows, a}), _wants((rows, a))) for a in out.axes - {rows}
            ]
        case Solve(_, _, vector, left, right):
            wishes = [_Wish(frozenset({left, right}), _wants((left, right)))]
            others = vector.axes - {left}
            return wishes + [
                _Wish(frozenset({first, a}), _wants((first, a)))
                for a in others
                for first in (left, right)
            ]
        case _:
            return []


def _in_lanes(program: Program, ops: list[Op]) -> list[_Wish]:
    """What a program has a part of goes to lanes first where one warp scans rows: the axes that it
    has whole are summed, most of all in a lane's registers."""
    if dict(program.launch).get("num_warps") != 1:
        return []
    scanned = [{a for out in op.outs for a in out.axes} for op in ops if isinstance(op, Combine)]
    tiled = {axis.dim for axis in program.grid if axis.tiled}
    whole = {tile.dim for tile in program.tiles if tile.whole}
    pairs = sorted({(w, t) for axes in scanned for w in axes & whole for t in axes & tiled})
    return [_Wish(frozenset(pair), _wants(pair)) for pair in pairs]


def _as_in_memory(index: tuple[tuple[str, Value], ...]) -> list[_Wish]:
    axes = tuple(axis for _, value in index if len(value.axes) == 1 for axis in value.axes)
    if len(axes) < 2 or len(set(axes)) < len(axes):
        return []
    return [_Wish(frozenset(axes), _wants(axes, _FROM_MEMORY))]


def _turned_operands(dot: Dot, order: Order, flexible: frozenset[str]) -> int:
    return _IN_REGISTERS * sum(
        value.name not in flexible and wanted != tuple(a for a in order if a in value.axes)
        for value, wanted in dot_operands(dot, order)
    )


def _turns(x: Value, axis: str, to: str, order: Order) -> int:
    before = [a for a in order if a in x.axes]
    after = [a for a in order if a in x.axes - {axis} | {to}]
    return _IN_REGISTERS * ([to if a == axis else a for a in before] != after)


def _wants(wanted: Order, cost: int = _IN_REGISTERS) -> Callable[[Order], int]:
    return lambda order: cost * (tuple(a for a in order if a in wanted) != wanted)


def _cheapest(axes: Order, wishes: list[_Wish]) -> Order:
    """The first, in the order of permutations, of the cheapest orders.

    Beginnings are extended axis by axis; one that costs as much as the best known is given up.
    """
    best, least = axes, _costs(axes, wishes)

    def extend(head: Order, rest: Order) -> None:
        nonlocal best, least
        # A wish is judged when no more than one of its axes is missing: that one comes last.
        judged = [wish for wish in wishes if len(wish.axes.intersection(rest)) <= 1]
        cost = _costs(head + rest, judged)
        if cost >= least:
            return
        if not rest:
            best, least = head, cost
        for n, axis in enumerate(rest):
            extend((*head, axis), rest[:n] + rest[n + 1 :])

    extend((), axes)
    return best


def _costs(order: Order, wishes: list[_Wish]) -> int:
    return sum(wish.cost(order) for wish in wishes)


# ------------------------------------------------------------------------------------------------


def _preferred_order(program: Program) -> Order:
    tiled = [g.dim for g in program.grid if g.tiled]
    whole = [t.dim for t in program.tiles if t.whole]
    looped = [t.dim for t in program.tiles if not t.whole and t.dim not in tiled]
    return (*tiled, *looped, *whole)


def _only_read_by_dots(ops: list[Op]) -> frozenset[str]:
    """Loaded tiles that nothing but dots reads; what is loaded again lies as it does in memory, and
    must not decide how the rest lies."""
    loads = [op for op in ops if isinstance(op, Load) and not op.again]
    loaded = {op.out.name for op in loads if len(op.out.axes) == 2}
    for op in ops:
        elsewhere = operands(op)[2:] if isinstance(op, Dot) else operands(op)
        loaded -= {value.name for value in elsewhere}
    return frozenset(loaded)
