"""Which numbers the working precision holds as they are."""

from __future__ import annotations

from ...ir.expression import Call, Expr, Kind, Literal, Read, Ref
from ...ir.tile import DType
from .context import Context


def are_exact(factors: list[Expr], context: Context) -> bool:
    """Whether a product of ``factors`` is rounded by no cast to the working precision."""
    real = [f for f in factors if f.kind is not Kind.BOOL]
    return len(real) < 2 and all(_is_exact(factor, context) for factor in real)


def _is_exact(expr: Expr, context: Context) -> bool:
    buffers, narrow = context.buffers, context.dtype
    match expr:
        case Ref(name, _, _) | Read(Ref(name, _, _), _, 0) if name in buffers:
            return buffers[name].dtype in (narrow, DType.BOOL)
        case Call("where", (_, a, b)):
            return _is_exact(a, context) and _is_exact(b, context)
        case Literal(number):
            return number in (0, 1, -1)
    return expr.kind is Kind.BOOL


__all__ = ["are_exact"]
