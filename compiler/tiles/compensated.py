"""Sums that lose no more than one rounding of the result, however many numbers they have.

Compilers keep the order of sums and differences: no backend is given leave to associate anew.
"""

from __future__ import annotations

from math import inf

from ...ir.tile import DType, Value
from .builder import Builder


def coarse_and_rest(builder: Builder, x: Value, axis: str) -> tuple[Value, Value]:
    """A coarse part of ``x``, whose sums over a block of ``axis`` are exact, and what it leaves.

    Beside a number that no sum of the block reaches, x is rounded to that number's last place: so
    all sums are multiples of it, with no more digits than fit.
    """
    size = builder.elementwise("abs", x, dtype=x.dtype)
    reach = builder.reduce("sum", size, axis)
    far = _made(builder, "mul", builder.constant(2.0, x.dtype), reach)
    far = _if_finite(builder, far, far)
    coarse = _made(builder, "sub", _made(builder, "add", x, far), far)
    return coarse, _if_finite(builder, x, _made(builder, "sub", x, coarse))


def two_sum(builder: Builder, a: Value, b: Value) -> tuple[Value, Value]:
    """The sum, and what its rounding loses (Knuth): 0 beside a sum that is not finite."""
    total = _made(builder, "add", a, b)
    taken = _made(builder, "sub", total, a)
    kept = _made(builder, "sub", total, taken)
    lost_a, lost_b = _made(builder, "sub", a, kept), _made(builder, "sub", b, taken)
    return total, _if_finite(builder, total, _made(builder, "add", lost_a, lost_b))


def _if_finite(builder: Builder, value: Value, result: Value) -> Value:
    """``result``, or 0 where ``value`` is infinite or undefined."""
    size = builder.elementwise("abs", value, dtype=value.dtype)
    end = builder.constant(inf, value.dtype)
    finite = builder.elementwise("lt", size, end, dtype=DType.BOOL)
    nothing = builder.constant(0.0, value.dtype)
    return builder.elementwise("where", finite, result, nothing, dtype=value.dtype)


def _made(builder: Builder, fn: str, a: Value, b: Value) -> Value:
    return builder.elementwise(fn, a, b, dtype=a.dtype)


__all__ = ["coarse_and_rest", "two_sum"]
