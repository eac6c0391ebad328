"""A mixer whose reads step along an axis by numbers where they did by params that are known.

    x[J=(n + 1) * block - 1]   -->   x[J=(n + 1) * 64 - 1]

Whoever reads positions a known number apart reads each position once, so that the adjoint is a
read the other way; by a number that might be 0 it is a sum over all that read.
"""

from __future__ import annotations

from dataclasses import replace

from ....ir.expression import Call, Expr, Index, Kind, Literal, Read, Scalar, call
from ....ir.mixer import Mixer
from ....ir.rewriting import transform
from ....ir.stages import changed
from ...analysis.linear import linear


def known_strides(mixer: Mixer) -> Mixer:
    """The mixer with numbers for such params; itself where there are none.

    The numbers are those of ``mixer``: whoever runs the derivative at others sets them before.
    """
    numbers: dict[Expr, Expr] = {
        Scalar(p.name, p.kind): p.value
        for p in mixer.params
        if not p.runtime and isinstance(p.value, Literal) and isinstance(p.value.value, int)
    }

    def of_product(node: Expr) -> Expr | None:
        match node:
            case Call("mul", (a, b)) if a in numbers or b in numbers:
                return call("mul", numbers.get(a, a), numbers.get(b, b))
        return None

    def of_read(node: Expr) -> Expr | None:
        if not isinstance(node, Read) or node.kind is not Kind.REAL:
            return None  # what has no gradient stays as written
        at = tuple(
            (dim, index if _is_moved(index) else transform(index, of_product))
            for dim, index in node.at
        )
        return None if at == node.at else replace(node, at=at)

    def change(value: Expr) -> Expr:
        return transform(value, of_read)

    lets = tuple(replace(let, value=change(let.value)) for let in mixer.lets)
    return replace(mixer, lets=lets, stages=tuple(changed(s, change) for s in mixer.stages))


def _is_moved(index: Expr) -> bool:
    """Whether an index is a position moved by some rows: its adjoint is a read as it stands."""
    return any(isinstance(term, Index) and abs(c) == 1 for term, c in linear(index).terms)


__all__ = ["known_strides"]
