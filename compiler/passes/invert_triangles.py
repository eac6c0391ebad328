"""Triangular systems whose matrix is known before their right side: by the inverse, as a product.

    x = substitute a into b --> inverse = substitute a into 1; x = inverse b

What depends on the matrix alone can then be computed elsewhere, and no row waits for another where
the right side comes about. Systems of one matrix share its inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ...ir.tile import (
    Cast,
    Constant,
    Dot,
    DType,
    Elementwise,
    Op,
    Range,
    Reduce,
    Rename,
    Substitute,
    Tile,
    Value,
)

Fresh = Callable[[str], str]


@dataclass
class Inverses:
    """Rewrites of the systems of one program; ``third`` is a dim like their rows and columns."""

    third: Tile
    dtype: DType  # that products take
    fresh: Fresh
    ops: list[Op] = field(default_factory=list)
    known: dict[Value, Value] = field(default_factory=dict)

    def rewrite(self, body: tuple[Op, ...], late: Collection[str]) -> tuple[Op, ...]:
        """The ops of ``body``, systems as products whose right sides are ``late``, their matrices
        not."""
        for op in body:
            if self._is_system(op, late):
                assert isinstance(op, Substitute)
                self._product(op)
            else:
                self.ops.append(op)
        return tuple(self.ops)

    def _is_system(self, op: Op, late: Collection[str]) -> bool:
        if not isinstance(op, Substitute) or op.a.name in late or op.b.name not in late:
            return False
        return op.rows in op.b.axes and len(op.b.axes) <= 2

    def _value(self, hint: str, dtype: DType, *axes: str) -> Value:
        return Value(self.fresh(hint), dtype, frozenset(axes))

    def _add(self, op: Op, out: Value) -> Value:
        self.ops.append(op)
        return out

    def _inverse(self, op: Substitute) -> Value:
        """The inverse of 1 - a, as products take it."""
        if op.a not in self.known:
            rows, third = op.rows, self.third.dim
            row = self._value("row", DType.INT32, rows)
            column = self._value("column", DType.INT32, third)
            same = self._value("same", DType.BOOL, rows, third)
            one, zero = self._value("one", DType.FLOAT32), self._value("zero", DType.FLOAT32)
            unit = self._value("identity", DType.FLOAT32, rows, third)
            solved = self._value("inverse", DType.FLOAT32, rows, third)
            inverse = self._value("inverse", DType.FLOAT32, rows, op.columns)
            self.ops += [
                Range(row, None),
                Rename(column, row, rows, third),
                Elementwise(same, "eq", (row, column)),
                Constant(one, 1.0),
                Constant(zero, 0.0),
                Elementwise(unit, "where", (same, one, zero)),
                Substitute(solved, op.a, unit, rows, op.columns),
                Rename(inverse, solved, third, op.columns),
            ]
            self.known[op.a] = self._narrow(inverse)
        return self.known[op.a]

    def _narrow(self, x: Value) -> Value:
        if x.dtype is self.dtype:
            return x
        out = Value(self.fresh(f"{x.name}_narrow"), self.dtype, x.axes)
        return self._add(Cast(out, x), out)

    def _product(self, op: Substitute) -> None:
        rest = op.b.axes - {op.rows}
        inverse = self._inverse(op)
        right = self._narrow(op.b) if rest else op.b
        moved = Value(self.fresh(right.name), right.dtype, rest | {op.columns})
        self.ops.append(Rename(moved, right, op.rows, op.columns))
        if rest:
            self.ops.append(Dot(op.out, inverse, moved, op.columns))
            return
        wide = self._value(inverse.name, DType.FLOAT32, *inverse.axes)
        weighed = self._value("weighed", DType.FLOAT32, *inverse.axes)
        if inverse.dtype is not DType.FLOAT32:
            self.ops.append(Cast(wide, inverse))
        else:
            wide = inverse
        self.ops.append(Elementwise(weighed, "mul", (wide, moved)))
        self.ops.append(Reduce(op.out, "sum", weighed, op.columns))
