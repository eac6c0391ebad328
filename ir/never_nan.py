"""Which real numbers of a tile program can't be NaN, whatever was loaded.

A maximum that keeps a NaN costs a comparison and a choice per entry; where none can come, the
hardware's own maximum says the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from .tile import Cast, Constant, Elementwise, Op, Rename, Value, all_ops, made_by

_FALSE_FOR_NAN = frozenset({"lt", "le", "gt", "ge", "eq"})


def never_nan(body: tuple[Op, ...]) -> frozenset[str]:
    """Names of values that are never NaN: constants, and choices between such values or ones that
    a comparison guards, which is false where its operand is NaN (``where(x < y, x, 0)``)."""
    makers = {value.name: op for op in all_ops(body) for value in made_by(op)}
    return frozenset(name for name in makers if _is_number(name, makers))


def _is_number(name: str, makers: Mapping[str, Op]) -> bool:
    match makers.get(name):
        case Constant(_, value):
            return value == value
        case Elementwise(_, "where", (condition, x, other)):
            guarded = x.name in _compared(condition, makers)
            return _is_number(other.name, makers) and (guarded or _is_number(x.name, makers))
        case Cast(_, x) | Rename(_, x):
            return not x.dtype.is_float or _is_number(x.name, makers)
    return False


def _compared(condition: Value, makers: Mapping[str, Op]) -> set[str]:
    """What is compared, with a NaN nowhere, wherever the condition holds."""
    match makers.get(condition.name):
        case Elementwise(_, fn, args) if fn in _FALSE_FOR_NAN:
            return {value.name for value in args}
        case Elementwise(_, "and", args):
            return set().union(*(_compared(value, makers) for value in args))
    return set()
