"""What a row of a loop is: elementwise, mixing by constant weights, or anything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ....ir.expression import Call, Cumsum, Expr, Read, Reduce, Ref, Solve
from ....ir.mixer import State
from ....ir.rewriting import walk
from ....ir.single_assignment import before_row
from .dependence import Dependence


def loop_kind(states: tuple[State, ...], dependence: Dependence, over: str) -> str:
    """``elementwise``, ``mixing`` or ``dots``."""
    names = frozenset(before_row(s).name for s in states)
    worst = "elementwise"
    for expr in dependence.lines(names):
        if isinstance(expr, Ref) and expr.name in dependence.opaque:  # an inner loop
            return "dots"
        for node in _meetings(expr, dependence, names):
            if not isinstance(node, Reduce) or node.op != "sum" or node.group:
                return "dots"
            if not _constant(node, dependence, names, over):
                return "dots"
            worst = "mixing"
    return worst


def _meetings(expr: Expr, dependence: Dependence, names: frozenset[str]) -> Iterator[Expr]:
    """Every node at which entries of a state meet."""
    for node in walk(expr):
        if isinstance(node, Reduce | Cumsum | Solve) and dependence.of(node) & names:
            yield node


def _constant(node: Reduce, dependence: Dependence, names: frozenset[str], over: str) -> bool:
    """Whether the weights of a sum over states don't change from row to row."""
    weights = [f for f in _factors(node.x, dependence.values) if not dependence.of(f) & names]
    changing = [w for w in weights if over in w.axes]
    mixing = [w for w in weights if over not in w.axes and w.axes & set(node.over)]
    return not changing or bool(mixing)


def _factors(expr: Expr, values: Mapping[str, Expr]) -> Iterator[Expr]:
    match expr:
        case Call("mul", (a, b)):
            yield from _factors(a, values)
            yield from _factors(b, values)
        case Call("neg", (a,)):
            yield from _factors(a, values)
        case Ref(name) if name in values:
            yield from _factors(values[name], values)
        case Read(x) if isinstance(x, Ref) and x.name in values:
            yield from (Read(f, expr.at) if f.axes else f for f in _factors(x, values))
        case _:
            yield expr
