"""Numbers that are known while loading, computed with bounds."""

from __future__ import annotations

import math

from ....ir.errors import SpecError
from ....ir.expression import Call, Expr, Literal, call
from ..text.surface import Binary
from ..text.tokens import MAX_INTEGER
from .scope import Context

MAX_EXPONENT = 1024


def constant(expr: Expr) -> int | float | bool | None:
    """The value of an expression of literals alone; None where it is none, or undefined."""
    match expr:
        case Literal(value):
            return value
        case Call(fn, args):
            values = [constant(a) for a in args]
            if any(v is None for v in values):
                return None
            return _compute(fn, [v for v in values if v is not None])
        case _:
            return None


def _compute(fn: str, values: list[int | float | bool]) -> int | float | None:
    try:
        match fn, values:
            case "neg", [a]:
                return -a
            case "add", [a, b]:
                return a + b
            case "sub", [a, b]:
                return a - b
            case "mul", [a, b]:
                return a * b
            case "div", [a, b]:
                return a / b
            case "floordiv", [a, b]:
                return a // b
            case "mod", [a, b]:
                return a % b
            case "pow", [a, b]:
                power = None if _is_huge(a, b) else a**b
                return power if isinstance(power, int | float) else None
            case "sqrt", [a]:
                return math.sqrt(a)
    except (ArithmeticError, ValueError):
        return None
    return None


def _is_huge(base: int | float, power: int | float) -> bool:
    """Whether ``base ** power`` is an integer beyond 64 bits."""
    if isinstance(base, float) or isinstance(power, float) or power < 0:
        return False
    at_least = max(abs(base).bit_length() - 1, 0) * power  # its bits: beyond, it isn't computed
    return at_least > 64 or abs(int(base**power)) > MAX_INTEGER


def check_operator(node: Binary, left: Expr, right: Expr, context: Context) -> None:
    """Refuse a division by the constant 0, and integers that are too large to compute.

    Raises:
        SpecError: as said.
    """
    if node.op in ("add", "sub", "mul"):
        value = constant(call(node.op, left, right))
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise _too_large(node, context)
    if node.op not in ("div", "floordiv", "mod", "pow"):
        return
    power = constant(right)
    if power is None:
        return
    if node.op != "pow":
        if power == 0 and node.op != "div":
            raise context.error(node.span, "a division by 0")
        return
    base = constant(left)
    if abs(power) > MAX_EXPONENT and not math.isinf(power):
        raise context.error(
            node.span, f"the exponent {power:.6g} is too large", allowed=f"at most {MAX_EXPONENT}"
        )
    if base is not None and _is_huge(base, power):
        raise _too_large(node, context)


def _too_large(node: Binary, context: Context) -> SpecError:
    what = "power" if node.op == "pow" else "number"
    return context.error(
        node.span,
        f"this {what} is too large for an integer",
        allowed=f"at most {MAX_INTEGER}",
        do="write a real number: `2.0 ** 100`",
    )


__all__ = ["check_operator", "constant"]
