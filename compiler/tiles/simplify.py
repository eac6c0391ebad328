"""Arithmetic as a person writes it: no op where none is needed, and ``x - 1``, not ``x + -1``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ...ir.tile import DType, Value


class Arithmetic(Protocol):
    """What is asked of a builder: numbers that are known, and new ops."""

    @property
    def shifts(self) -> Mapping[str, tuple[Value, int]]:
        """Sums of a value and a number, by name."""
        ...

    @property
    def negated(self) -> Mapping[str, Value]:
        """What ``-x`` is the negative of, by name."""
        ...

    def constant_of(self, value: Value) -> float | int | bool | None:
        """The number that a value is, where it is known."""
        ...

    def is_nonnegative(self, value: Value) -> bool:
        """Whether a value is never negative."""
        ...

    def constant(
        self, value: float | int | bool, dtype: DType, axes: frozenset[str] = frozenset()
    ) -> Value:
        """A number as a value."""
        ...

    def elementwise(self, fn: str, *args: Value, dtype: DType) -> Value:
        """A function of values."""
        ...


def without_negatives(
    builder: Arithmetic, fn: str, args: tuple[Value, ...]
) -> tuple[str, tuple[Value, ...]]:
    """The same to the bit with the sign in the op.

    x + -1 --> x - 1, x - -y --> x + y, -x + y --> y - x, x * -1 --> -x.
    """
    if fn not in ("add", "sub", "mul"):
        return fn, args
    a, b = args
    if fn == "mul":
        for x, sign in ((a, b), (b, a)):
            plain = sign.axes <= x.axes and sign.dtype is x.dtype
            if plain and builder.constant_of(sign) == -1 and builder.constant_of(x) is None:
                return "neg", (x,)
        return fn, args
    if (opposite := _opposite(builder, b)) is not None:
        return ("sub" if fn == "add" else "add"), (a, opposite)
    if fn == "add" and (opposite := _opposite(builder, a)) is not None:
        return "sub", (b, opposite)
    return fn, args


def _opposite(builder: Arithmetic, value: Value) -> Value | None:
    """x for a value that is written as -x."""
    number = builder.constant_of(value)
    if number is None:
        return builder.negated.get(value.name)
    small = -(1 << 31) < number < 0 or (value.dtype.is_float and number < 0)
    return builder.constant(-number, value.dtype, value.axes) if small else None


def simplify(builder: Arithmetic, fn: str, args: tuple[Value, ...]) -> Value | None:
    """A value equal to ``fn(args)`` that takes less, if one is seen.

    x + 0 --> x, (x + 3) - 1 --> x + 2, min(x, x) --> x, max(x, 0) --> x for an x that is never
    negative, and numbers alone are computed. Precondition: int32 scalars.
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
        case "max" if a == b or (y == 0 and builder.is_nonnegative(a)):
            return a
        case "max" if x == 0 and builder.is_nonnegative(b):
            return b
        case "min" if a == b:
            return a
    return None


def _shifted(builder: Arithmetic, value: Value, by: int) -> Value | None:
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
