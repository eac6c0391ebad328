"""Evaluate an expression on a tile: from named axes to tile ops.

Where an op lands (before the loops, in one of them) is the builder's doing; here is only what is
computed. Integers are int32, or int64 where their range is not shown to fit; reals are float32;
narrow inputs are widened where arithmetic begins and stay narrow as operands of a dot.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.errors import UnsupportedError
from ...ir.expression import (
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
    Solve,
)
from ...ir.host import is_host
from ...ir.tile import BufferArgument, DType, ParamArgument, Value
from ..analysis.facts import is_nonnegative
from .contraction import reduce_on_tile
from .evaluator import Evaluator, number_in
from .groups import without_group
from .integers import integral, powered, whole_power
from .moving import captures, move
from .reduction import reduce_in_loop, reduce_members
from .tile_reads import read_from_tile


class TileEvaluator(Evaluator):
    """Every term of the language as tile ops."""

    def _evaluate(self, expr: Expr, hint: str) -> Value:
        if not expr.axes and not isinstance(expr, Literal | Size | Scalar) and is_host(expr):
            return self._host(expr, hint)
        match expr:
            case Literal(value):
                return self.builder.constant(value, self.dtype_of(expr))
            case Size(dim):
                return self.size(dim)
            case Scalar(name, kind, runtime):
                nonnegative = is_nonnegative(expr, self.context.masks)
                dtype = DType.INT32 if kind is Kind.BOOL else self.dtype_of(expr)
                given = self.builder.scalar(ParamArgument(name, dtype, runtime, nonnegative))
                return self._truth(given) if kind is Kind.BOOL else given
            case Index(dim):
                return self.position(dim)
            case Ref():
                return self._read(expr, {}, 0.0, hint)
            case Read(x, at, fill):
                return self._read(x, dict(at), fill, hint)
            case Call():
                return self._call(expr, hint)
            case Reduce():
                return self._reduce(expr, hint)
            case Cumsum(x, over, reverse, exclusive):
                return self._cumsum(x, over, reverse, exclusive, hint)
            case Solve(matrix, vector, left, right):
                for dim in (left, right):
                    if self.context.length(dim) is None:
                        raise UnsupportedError(
                            f"`solve` along {dim}, an axis of any length: a tile holds its systems "
                            "whole, along axes of fixed sizes"
                        )
                    self.position(dim)
                sides = [self.masked(self.real(side), left, 0.0) for side in (matrix, vector)]
                sides[0] = self.masked(sides[0], right, 0.0)
                return self.builder.solve(sides[0], sides[1], left, right, hint)
        raise UnsupportedError(f"no lowering for {type(expr).__name__}: {expr}")

    def _read(self, x: Expr, at: Mapping[str, Expr], fill: float, hint: str) -> Value:
        if isinstance(x, Ref) and x.name in self.context.buffers:
            return self._load(x, at, fill, hint)
        if isinstance(x, Ref):
            from .tile_reads import read_from_tile

            return read_from_tile(self, x, at, fill, hint)
        if captures(x, at):
            return self._read_held(x, at, fill, hint)
        moved = move(x, at)
        mask = None
        for dim, index in at.items():
            mask = self.both(mask, self.inside(index, dim))
        value = self.evaluate(moved, hint)
        if mask is None:
            return value
        dtype = DType.FLOAT32 if value.dtype.is_narrow else value.dtype
        if dtype is not DType.FLOAT32 and not float(fill).is_integer():
            dtype = DType.FLOAT32
        outside = self.builder.constant(number_in(fill, dtype), dtype)
        return self.where(mask, self.builder.cast(value, dtype), outside, hint)

    def _read_held(self, x: Expr, at: Mapping[str, Expr], fill: float, hint: str) -> Value:
        """A reduction read along an axis that it reduces: held on the tile, and read there."""
        if any(self.context.length(dim) is None for dim in at):
            raise UnsupportedError(
                f"a read of {x} along an axis that it reduces: name it in a map before"
            )
        return read_from_tile(self, self.named(self.evaluate(x)), at, fill, hint)

    def _load(self, ref: Ref, at: Mapping[str, Expr], fill: float, hint: str) -> Value:
        buffer = self.context.buffers[ref.name]
        self.builder.buffer(BufferArgument(buffer.name, buffer.dims, buffer.dtype))
        places: list[tuple[str, Value]] = []
        mask: Value | None = None
        steps = ""
        for dim in buffer.dims:
            if dim in at:
                index, step = at[dim], _step(at[dim])
                steps += step
                places.append((dim, self.integer(index, f"{dim.lower()}{step}")))
                mask = self.both(mask, self.inside(index, dim))
                mask = self.both(mask, self.bounds_of(index.axes))
            else:
                places.append((dim, self.position(dim)))
                mask = self.both(mask, self.builder.bound(dim))
        fits = buffer.dtype.is_float or float(fill).is_integer()
        value = self.builder.load(
            buffer.name,
            places,
            mask,
            number_in(fill if fits else 0, buffer.dtype),
            hint or f"{buffer.name}{steps or '_tile'}",
        )
        if value.dtype is DType.INT64 and self.dtype_of(ref) is DType.INT32:
            value = self.builder.cast(value, DType.INT32, hint)
        return value if fits else self._filled(value, at, fill, hint)

    def _filled(self, value: Value, at: Mapping[str, Expr], fill: float, hint: str) -> Value:
        """Integers read at computed positions, and a number that is none outside."""
        mask: Value | None = None
        for dim, index in at.items():
            mask = self.both(mask, self.inside(index, dim))
        if mask is None:
            return value
        outside = self.builder.constant(fill, DType.FLOAT32)
        return self.where(mask, self.builder.cast(value, DType.FLOAT32), outside, hint)

    def _call(self, expr: Call, hint: str) -> Value:
        fn, args = expr.fn, expr.args
        dtype = self.dtype_of(expr)
        match fn:
            case "detach":
                return self.evaluate(args[0], hint)
            case "where":
                a, b = (self.builder.cast(self.evaluate(x), dtype) for x in args[1:])
                return self.where(self.condition(args[0]), a, b, hint)
            case "and" | "or" | "not":
                values = [self.condition(a) for a in args]
            case "floor" | "ceil" | "round":
                if args[0].kind <= Kind.INT:
                    return self.builder.cast(self.evaluate(args[0]), dtype, hint)
                rounded = self.builder.elementwise(fn, self.real(args[0]), dtype=DType.FLOAT32)
                return self.builder.cast(rounded, DType.INT32, hint)
            case "pow" if (power := whole_power(self, args[1])) is not None:
                return powered(
                    self.builder, self.builder.cast(self.evaluate(args[0]), dtype), power, hint
                )
            case "lt" | "le" | "gt" | "ge" | "eq" | "ne":
                return integral(self, fn, args, max(Kind.INT, *(a.kind for a in args)), dtype, hint)
            case _ if expr.kind is Kind.INT:
                return integral(self, fn, args, Kind.INT, dtype, hint)
            case _:
                values = [self.builder.cast(self.evaluate(a), dtype) for a in args]
        return self.builder.elementwise(fn, *values, dtype=dtype, hint=hint)

    def _reduce(self, expr: Reduce, hint: str) -> Value:
        if expr.group:
            members = reduce_members(self, expr, hint)
            if members is not None:
                return members
            return self.evaluate(without_group(expr, self.context.sizes, self.context.params), hint)
        looped = [dim for dim in expr.over if self.context.length(dim) is None]
        if looped:
            return reduce_in_loop(self, expr, looped, hint)
        return reduce_on_tile(self, expr, hint)

    def _cumsum(self, x: Expr, over: str, reverse: bool, exclusive: bool, hint: str) -> Value:
        if self.context.length(over) is None:
            raise UnsupportedError(f"a running sum along {over} inside another kernel")
        self.position(over)
        dtype = self.dtype_of(Cumsum(x, over))
        value = self.masked(self.builder.cast(self.evaluate(x), dtype), over, 0.0)
        running = self.builder.scan(value, over, reverse, hint)
        if not exclusive:
            return running
        return self.builder.elementwise("sub", running, value, dtype=dtype, hint=hint)


def _step(index: Expr) -> str:
    """What a read one row further on, or back, adds to a name."""
    match index:
        case Call("add" | "sub" as fn, (Index(), Literal(1 | -1 as by))):
            return "_next" if (fn == "add") == (by == 1) else "_previous"
        case _:
            return ""
