"""The strongly connected components of a step's states, in an order of computation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ....ir.mixer import Recurrence
from .dependence import Dependence


def components(
    recurrence: Recurrence, dependence: Dependence, joined: Sequence[frozenset[str]]
) -> Iterator[frozenset[str]]:
    """The names of each component's states; the sets in ``joined`` stay together.

    Where the order is free, states with more axes come first: a normaliser then finds the matrix
    state that it rides along with.
    """
    import networkx

    graph = networkx.DiGraph()
    graph.add_nodes_from(state.name for state in recurrence.states)
    found = {before.name: state for state, before in dependence.step.before}
    for name, value in dependence.step.after:
        graph.add_edges_from((found[read], name) for read in dependence.of(value))
    for together in joined:
        ring = sorted(together)
        graph.add_edges_from(zip(ring, [*ring[1:], ring[0]], strict=True))
    places = {s.name: (-len(s.listed), i) for i, s in enumerate(recurrence.states)}
    order = networkx.condensation(graph)

    def place(node: int) -> tuple[int, int]:
        return min(places[name] for name in order.nodes[node]["members"])

    for node in networkx.lexicographical_topological_sort(order, key=place):
        yield frozenset(order.nodes[node]["members"])
