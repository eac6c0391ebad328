"""Reductions over a few places that are counted, not stored: written out.

    all(ids[T=i - k] == ids[T=j - 1 - k], K), K = 2  -->  the same with k = 0, and with k = 1

A pair's condition is then made in the attention that asks for it, and is no matrix of its own.
Left alone: axes that a tensor has, those of more than ``MOST`` places, and reductions by group.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from ...ir.expression import Expr, Literal, Reduce, Ref, Scalar, Size, call
from ...ir.host import evaluate_host
from ...ir.mixer import Mixer
from ...ir.rewriting import transform, walk
from ..tiles.moving import move

MOST = 4
_JOINED = {"all": "and", "any": "or", "sum": "add", "prod": "mul", "max": "max", "min": "min"}


def written_out(expr: Expr, mixer: Mixer, params: Mapping[str, int | float | bool]) -> Expr:
    """``expr`` with reductions over a few counted places written out; ``params`` are known."""
    short = _short(mixer, params)

    def change(node: Expr) -> Expr | None:
        match node:
            case Reduce(op, x, (dim,), None, ()) if dim in short and op in _JOINED:
                if any(isinstance(n, Ref) and dim in n.axes for n in walk(x)):
                    return None
                places = [move(x, {dim: Literal(k)}) for k in range(short[dim])]
                return reduce(lambda a, b: call(_JOINED[op], a, b), places)
        return None

    return transform(expr, change) if short else expr


def _short(mixer: Mixer, params: Mapping[str, int | float | bool]) -> dict[str, int]:
    """The axes of a known size, which depends on no other."""
    found = {}
    for dim, value in mixer.sizes:
        nodes = list(walk(value))
        known = all(node.name in params for node in nodes if isinstance(node, Scalar))
        if known and not any(isinstance(node, Size | Ref) for node in nodes):
            size = int(evaluate_host(value, {}, params))
            if 1 <= size <= MOST:
                found[dim] = size
    return found


__all__ = ["written_out"]
