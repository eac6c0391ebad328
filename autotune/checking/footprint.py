"""What checking a mixer takes in memory, estimated before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...ir.expression import Call, Expr, Kind, Reduce
from ...ir.mixer import Attention, Map, Mixer, Recurrence, Select, assignments
from ...ir.plan_memory import derived_sizes
from ...ir.stages import values

_BYTES = 8  # of a number in the reference
# Values as large as the largest that are alive at once: it, what it is made of, a result.
_ALIVE = 3


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes in all, and the axes of the largest value with its own bytes."""

    total_bytes: int
    largest: tuple[str, ...]
    largest_bytes: int


def footprint(mixer: Mixer, sizes: Mapping[str, int]) -> Footprint:
    """What the float64 reference holds at these sizes: no less, and not much more.

    Sums of products are contracted without the product in memory; what a step makes of a row is
    a row.
    """
    sizes = derived_sizes(mixer, sizes)
    tensors = [tuple(i.dims) for i in mixer.inputs] + [tuple(o.dims) for o in mixer.outputs]
    values = {*tensors, *(tuple(sorted(axes)) for axes in _values(mixer))}
    numbers = {dims: _BYTES * math.prod(sizes.get(dim, 1) for dim in dims) for dims in values}
    largest = max(sorted(numbers), key=numbers.__getitem__, default=())
    most = numbers.get(largest, 0)
    total = _ALIVE * most + sum(numbers[dims] for dims in tensors)
    return Footprint(total, largest, most)


def _values(mixer: Mixer) -> Iterator[frozenset[str]]:
    for let in mixer.lets:
        yield from _in_memory(let.value)
    for stage in mixer.stages:
        match stage:
            case Map(equations):
                for equation in equations:
                    yield from _in_memory(equation.value)
            case Attention():
                yield stage.queries | {stage.over}
                parts = (stage.score, stage.mask, stage.gain, *(o.value for o in stage.outputs))
                for part in parts:
                    yield from () if part is None else _in_memory(part)
            case Select():
                yield stage.queries | {*stage.over}
                for _, part in values(stage):
                    yield from _in_memory(part)
            case Recurrence():
                yield from (frozenset(state.dims) for state in stage.states)
                yield from (own.axes for own in stage.own)
                for equation, _ in assignments(stage.step):
                    yield from (axes - {stage.over} for axes in _in_memory(equation.value))


def _in_memory(expr: Expr) -> Iterator[frozenset[str]]:
    pending, seen = [expr], set[int]()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node.axes
        contracted = isinstance(node, Reduce) and node.op == "sum" and node.kind is Kind.REAL
        pending += _factors(node.children[0]) if contracted else node.children
        pending += node.children[1:] if contracted else ()


def _factors(expr: Expr) -> list[Expr]:
    match expr:
        case Call("mul", (a, b)):
            return [*_factors(a), *_factors(b)]
        case _:
            return [expr]


__all__ = ["Footprint", "footprint"]
