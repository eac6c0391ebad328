"""Where a straight line of ops is cut in two: a minimum cut by bytes on its dataflow graph.

Ops of the earlier part are computed there, and what the later part needs of them either crosses in
memory, written and read, or is made a second time. Products, scans, exponentials and the like are
never made twice; what is loaded may be loaded again, at the cost of its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...ir.tile import (
    Cast,
    Combine,
    Comment,
    Constant,
    Elementwise,
    For,
    Load,
    Op,
    Range,
    Rename,
    Value,
    made_by,
    operands,
)

if TYPE_CHECKING:
    import networkx

# What costs an issue slot or two for an element.
_CHEAP = frozenset(
    "add sub mul neg where min max abs lt le gt ge eq ne and or not floordiv mod".split()
)
_EARLIER, _LATER = ("end", "earlier"), ("end", "later")


@dataclass(frozen=True, slots=True)
class Cut:
    """``later`` are the places of the ops that the later part computes; ``crossing`` is stored."""

    later: frozenset[int]
    crossing: tuple[Value, ...]


def free_values(op: Op) -> set[Value]:
    """What an op reads, inside too, and does not make itself."""
    match op:
        case For(variable, carried=carried, body=body, yields=yields):
            own = {variable, *(c.inner for c in carried)}
            results = yields
        case Combine(left=left, right=right, body=body, results=results):
            own = {*left, *right}
        case _:
            return set(operands(op))
    for inner in body:
        own |= set(made_by(inner))
    inside = set(results).union(*(free_values(inner) for inner in body))
    return set(operands(op)) | (inside - own)


def reached_by(ops: Sequence[Op], names: Collection[str]) -> set[int]:
    """The places of the ops that depend on values of these names."""
    known, found = set(names), set[int]()
    for place, op in enumerate(ops):
        if any(value.name in known for value in free_values(op)):
            found.add(place)
            known |= {value.name for value in made_by(op)}
    return found


def reaching(ops: Sequence[Op], values: Collection[Value]) -> set[int]:
    """The places of the ops that values depend on."""
    wanted, found = {value.name for value in values}, set[int]()
    for place in reversed(range(len(ops))):
        if any(value.name in wanted for value in made_by(ops[place])):
            found.add(place)
            wanted |= {value.name for value in free_values(ops[place])}
    return found


def is_cheap(op: Op) -> bool:
    """Whether an op may be made twice."""
    match op:
        case Elementwise(_, fn, _):
            return fn in _CHEAP
        case _:
            return isinstance(op, Constant | Range | Cast | Rename | Load | Comment)


def cut_by_bytes(
    ops: Sequence[Op],
    earlier: Collection[int],
    later: Collection[int],
    given: Collection[Value],
    size_bytes: Callable[[Value], int],
) -> Cut:
    """The cut that moves the fewest bytes.

    Args:
        earlier: places of ops that are computed in the earlier part alone.
        later: those of ops that are computed in the later part alone.
        given: values that the earlier part has beside those that its ops make.
    """
    import networkx

    graph = _dataflow(ops, earlier, later, given, size_bytes)
    if _EARLIER not in graph or _LATER not in graph:
        return Cut(frozenset(later), ())
    _, (above, below) = networkx.minimum_cut(graph, _EARLIER, _LATER)
    makers: dict[Value, tuple[str, object]] = {
        value: ("op", place) for place, op in enumerate(ops) for value in made_by(op)
    }
    makers |= {value: ("given", value.name) for value in given}
    crossing = (v for v, maker in makers.items() if maker in above and ("value", v.name) in below)
    places = {place for kind, place in below if kind == "op"}
    alone = {p for p in range(len(ops)) if ("op", p) not in graph and is_cheap(ops[p])}
    return Cut(frozenset(places | alone | set(later)), tuple(crossing))


def _dataflow(
    ops: Sequence[Op],
    earlier: Collection[int],
    later: Collection[int],
    given: Collection[Value],
    size_bytes: Callable[[Value], int],
) -> networkx.DiGraph[Any]:
    """Edges from what makes a value to the value, of its bytes written and read; from a value to
    what needs it, without a limit."""
    import networkx

    graph: networkx.DiGraph[Any] = networkx.DiGraph()
    known = {value.name for value in given}
    for value in given:
        graph.add_edge(_EARLIER, ("given", value.name))
        graph.add_edge(("given", value.name), ("value", value.name), capacity=2 * size_bytes(value))
    for place, op in enumerate(ops):
        node = ("op", place)
        if place in later:
            graph.add_edge(node, _LATER)
        elif place in earlier:
            graph.add_edge(_EARLIER, node)
        elif isinstance(op, Load):
            graph.add_edge(_EARLIER, node, capacity=size_bytes(op.out))
        for value in free_values(op):
            if value.name in known:
                graph.add_edge(("value", value.name), node)
        for value in made_by(op):
            known.add(value.name)
            graph.add_edge(node, ("value", value.name), capacity=2 * size_bytes(value))
    return graph
