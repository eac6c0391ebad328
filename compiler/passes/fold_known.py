"""Ops of a loop's body where some of its values are known numbers: what follows from them.

    near = false: chosen = same and near; a = where(chosen, 1, 0); s' = dot(a, k) + s --> s' = s

0 times anything is 0 here, even times NaN: a factor that is 0 in a whole block leaves out what the
other holds, as a mask does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...ir.renaming import with_values
from ...ir.tile import (
    Cast,
    Constant,
    Dot,
    DType,
    Elementwise,
    Op,
    Reduce,
    Rename,
    Scan,
    Solve,
    Substitute,
    Value,
    made_by,
)

Number = float | int | bool


@dataclass
class Known:
    """What is known of values while ops are gone through: numbers, by name, and equals."""

    numbers: dict[str, Number]
    same: dict[Value, Value] = field(default_factory=dict)

    def number(self, value: Value) -> Number | None:
        """The number that a value is everywhere on its tile."""
        return self.numbers.get(value.name)

    def value(self, value: Value) -> Value:
        """What stands for a value."""
        return self.same.get(value, value)

    def fold(self, body: tuple[Op, ...]) -> tuple[Op, ...]:
        """The ops with known numbers written out, without those that give what there is."""
        kept: list[Op] = []
        for op in body:
            op = with_values(op, self.value)
            number, equal = self._number(op), self._equal(op)
            (out,) = made_by(op) if number is not None or equal is not None else (None,)
            if out is not None and number is not None:
                number = _in(number, out.dtype)
                self.numbers[out.name] = number
                kept.append(Constant(out, number))
            elif out is not None and equal is not None and _are_alike(out, equal):
                self.same[out] = equal
            else:
                kept.append(op)
        return tuple(kept)

    def _is_zero(self, value: Value) -> bool:
        return self.number(value) == 0

    def _number(self, op: Op) -> Number | None:
        """The number that an op gives, if it is known."""
        match op:
            case Constant(_, value):
                return value
            case Cast(_, x) if self.number(x) in (0, 1):
                return self.number(x)
            case Rename(_, x):
                return self.number(x)
            case Reduce(_, "sum", x) | Scan(_, x, op="sum") if self._is_zero(x):
                return 0
            case Substitute(_, _, b) | Solve(_, _, b) if self._is_zero(b):
                return 0
            case Dot(_, a, b, _, acc) if self._is_zero(a) or self._is_zero(b):
                return 0 if acc is None else self.number(acc)
            case Elementwise(_, fn, args):
                return self._of_function(fn, args)
        return None

    def _of_function(self, fn: str, args: tuple[Value, ...]) -> Number | None:
        numbers = [self.number(arg) for arg in args]
        match fn:
            case "and" if False in numbers:
                return False
            case "or" if True in numbers:
                return True
            case "mul" if 0 in numbers:
                return 0
            case "add" | "sub" | "neg" if all(number == 0 for number in numbers):
                return 0
            case "where" if numbers[0] is not None:
                return numbers[1] if numbers[0] else numbers[2]
            case "where" if numbers[1] == numbers[2]:
                return numbers[1]
        return None

    def _equal(self, op: Op) -> Value | None:
        """A value that an op gives again."""
        match op:
            case Dot(_, a, b, _, acc) if self._is_zero(a) or self._is_zero(b):
                return acc
            case Elementwise(_, "where", (condition, a, b)):
                known = self.number(condition)
                return None if known is None else a if known else b
            case Elementwise(_, "and" | "or" as fn, (a, b)):
                neutral = fn == "and"
                return b if self.number(a) is neutral else a if self.number(b) is neutral else None
            case Elementwise(_, "add", (a, b)) if self._is_zero(a):
                return b
            case Elementwise(_, "add" | "sub", (a, b)) if self._is_zero(b):
                return a
        return None


def _are_alike(a: Value, b: Value) -> bool:
    return a.dtype is b.dtype and a.axes == b.axes


def _in(number: Number, dtype: DType) -> Number:
    """A number as a type has it."""
    if dtype.is_float:
        return float(number)
    return bool(number) if dtype is DType.BOOL else int(number)


__all__ = ["Known"]
