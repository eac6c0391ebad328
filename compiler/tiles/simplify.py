"""Integer arithmetic on scalars that needs no op: loop bounds come out as a person writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...ir.tile import DType, Value

if TYPE_CHECKING:
    from .builder import Builder


def simplify(builder: Builder, fn: str, args: tuple[Value, ...]) -> Value | None:
    """A value equal to ``fn(args)`` that takes less, if one is seen.

    x + 0 --> x, (x + 3) - 1 --> x + 2, max(x, 0) --> x for a natural x, min(x, x) --> x, and
    numbers alone are computed. Precondition: int32 scalars.
    """
    numbers = [builder.constant_of(a) for a in args]
    if len(args) != 2:
        return None
    a, b = args
    x, y = numbers
    if isinstance(x, int) and isinstance(y, int) and fn in ("add", "sub", "mul", "max", "min"):
        made = {"add": x + y, "sub": x - y, "mul": x * y, "max": max(x, y), "min": min(x, y)}[fn]
        return builder.constant(made, DType.INT32)
    match fn:
        case "add" if x is not None:
            return _shifted(builder, b, int(x))
        case "add" | "sub" if y is not None:
            return _shifted(builder, a, int(y) if fn == "add" else -int(y))
        case "mul" if y == 1:
            return a
        case "max" if a == b or (y == 0 and builder.is_natural(a)):
            return a
        case "max" if x == 0 and builder.is_natural(b):
            return b
        case "min" if a == b:
            return a
    return None


def _shifted(builder: Builder, value: Value, by: int) -> Value | None:
    """value + by, through a number that was added before."""
    if by == 0:
        return value
    base = builder.shifts.get(value.name)
    if base is None:
        return None
    total = base[1] + by
    if total == 0:
        return base[0]
    number = builder.constant(abs(total), DType.INT32)
    return builder.elementwise("add" if total > 0 else "sub", base[0], number, dtype=DType.INT32)
