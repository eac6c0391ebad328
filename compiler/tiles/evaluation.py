"""Evaluate an expression on a tile: from named axes to tile ops.

Where an op lands (before the loops, in one of them) is the builder's doing; here is only what is
computed. Integers are int32, or int64 where their range is not shown to fit; reals are float32;
narrow inputs are widened where arithmetic begins and stay narrow as operands of a dot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product

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
    call,
    substitute,
    walk,
)
from ...ir.host import evaluate_host, is_host
from ...ir.plan import Buffer
from ...ir.promises import WholeBlocks
from ...ir.tile import BufferArgument, DType, ParamArgument, SizeArgument, Tile, Value
from ...ir.verify_plan import LONGEST
from ..analysis.distances import lies_within
from ..analysis.facts import Facts, is_natural
from ..analysis.integer_range import IntegerRanges
from .builder import KIND_DTYPE, Builder
from .integers import clipped, integral, powered, whole_power
from .moving import captures, move

_IDENTITY: Mapping[str, float] = {
    "sum": 0.0,
    "prod": 1.0,
    "max": -math.inf,
    "min": math.inf,
    "any": 0,
    "all": 1,
}
_MERGE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "max", "all": "min"}


Launch = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Context:
    """What is fixed while a plan is made.

    ``sizes`` are the dims whose length is known at compile time: a tile holds them whole.
    ``equal`` maps a dim to a representative of the dims that have its length. ``buffers`` are the
    names that are in memory; every other name has been written out.
    """

    sizes: Mapping[str, int]
    params: Mapping[str, int | float | bool]
    dtype: DType
    buffers: dict[str, Buffer]
    names: dict[Expr, str] = field(default_factory=dict)  # what the spec calls an expression
    equal: Mapping[str, str] = field(default_factory=dict)
    heads: frozenset[tuple[str, str]] = frozenset()
    blocks: Mapping[str, int] = field(default_factory=dict)  # dim -> default block size
    runtime: frozenset[str] = frozenset()  # params given at each call
    derived: Mapping[str, Expr] = field(default_factory=dict)  # sizes of dims that no buffer has
    masks: Facts = field(default_factory=Facts)  # what the mask analysis may take for granted
    ranges: IntegerRanges = field(default_factory=lambda: IntegerRanges({}, {}))
    features: frozenset[str] = frozenset()  # channels, and what else a tile holds whole
    tiling: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # what a spec allows
    weight_bytes: int = 0  # of the weights of a cell, what a program may keep from row to row

    def length(self, dim: str) -> int | None:
        """The dim's length where it is fixed."""
        return self.sizes.get(dim)

    def with_blocks(self, blocks: Mapping[str, int]) -> Context:
        """With blocks of these sizes, as far as the spec's ``tiling`` allows them."""
        allowed = self.tiling
        chosen = {d: _allowed(n, allowed.get(f"block_{d.lower()}")) for d, n in blocks.items()}
        return replace(self, blocks=chosen)

    def launch(self, launch: Launch) -> Launch:
        """Warps and pipeline stages as the spec's ``tiling`` allows them."""
        return tuple(
            (name, _allowed(number, self.tiling.get(name.removeprefix("num_"))))
            for name, number in launch
        )


def _allowed(number: int, choices: tuple[int, ...] | None) -> int:
    """A knob's value: the compiler's, where the spec does not rule it out."""
    return number if not choices or number in choices else choices[0]


def padded(size: int, least: int = 1) -> int:
    """The power of two that holds ``size`` positions."""
    return max(least, 1 << max(0, size - 1).bit_length())


class Evaluator:
    """Expressions to values, on one builder."""

    def __init__(self, builder: Builder, context: Context) -> None:
        self.builder = builder
        builder.reserve([*context.params, *context.runtime])
        self.context = context

    # --------------------------------------------------------------------------- entry

    def evaluate(self, expr: Expr, hint: str = "") -> Value:
        """The value of ``expr`` on the tile in force."""
        if expr in self.context.names:
            hint = self.context.names[expr]
        known = self.builder.lookup(expr)
        if known is not None:
            return known
        try:
            value = self._evaluate(expr, hint)
        except UnsupportedError as error:
            if error.line is None and expr.span is not None:  # the innermost term that has a place
                error.line, error.column = expr.span.line, expr.span.column
            raise
        self.builder.bind(expr, value)
        return value

    def real(self, expr: Expr, hint: str = "") -> Value:
        """The value as float32."""
        return self.builder.cast(self.evaluate(expr, hint), DType.FLOAT32)

    def integer(self, expr: Expr, hint: str = "") -> Value:
        """The value as int32, for a position: what is far outside any axis stays outside."""
        value = self.evaluate(expr, hint)
        if value.dtype is not DType.INT64:
            return self.builder.cast(value, DType.INT32)
        return clipped(self.builder, value, -LONGEST, LONGEST)

    def dtype_of(self, expr: Expr) -> DType:
        """The type that holds every value of an expression, in arithmetic."""
        if expr.kind is not Kind.INT:
            return KIND_DTYPE[expr.kind]
        return DType.INT32 if self.context.ranges.bits(expr) == 32 else DType.INT64

    def condition(self, expr: Expr, hint: str = "") -> Value:
        """The value as a truth value."""
        return self.builder.cast(self.evaluate(expr, hint), DType.BOOL)

    def _evaluate(self, expr: Expr, hint: str) -> Value:
        if not expr.axes and not isinstance(expr, Literal | Size | Scalar) and is_host(expr):
            return self._host(expr, hint)
        match expr:
            case Literal(value):
                return self.builder.constant(value, self.dtype_of(expr))
            case Size(dim):
                return self.size(dim)
            case Scalar(name, kind, runtime):
                natural = is_natural(expr, self.context.masks)
                dtype = DType.INT32 if kind is Kind.BOOL else self.dtype_of(expr)
                given = self.builder.scalar(ParamArgument(name, dtype, runtime, natural))
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

    # -------------------------------------------------------------------------- scalars

    def size(self, dim: str) -> Value:
        """The length of a dim: a number where it is fixed, an argument elsewhere."""
        fixed = self.context.length(dim)
        if fixed is not None:
            return self.builder.constant(fixed, DType.INT32)
        if dim in self.context.derived:
            return self._host(self.context.derived[dim], f"{dim.lower()}_rows", DType.INT32)
        return self.builder.scalar(SizeArgument(dim))

    def _host(self, expr: Expr, hint: str, dtype: DType | None = None) -> Value:
        dtype, fixed = dtype or self.dtype_of(expr), self.fixed_number(expr)
        if fixed is not None and (expr.kind is not Kind.REAL or not _has_param(expr)):
            return self.builder.constant(fixed, dtype)
        name = hint or name_of(expr)
        if expr.kind is Kind.BOOL:  # kernels take no truth values as arguments
            number = call("where", expr, 1, 0)
            flag = self.builder.host_argument(name, DType.INT32, number, fixed is not None, True)
            return self._truth(flag)
        natural = is_natural(expr, self.context.masks)
        return self.builder.host_argument(name, dtype, expr, fixed is not None, natural)

    def _truth(self, value: Value) -> Value:
        """Whether an integer is not 0."""
        zero = self.builder.constant(0, DType.INT32)
        return self.builder.elementwise("ne", value, zero, dtype=DType.BOOL)

    def fixed_number(self, expr: Expr) -> int | float | bool | None:
        """The number an expression stands for, if compile time knows it."""
        if not is_host(expr) or expr.axes:
            return None
        for node in walk(expr):
            if isinstance(node, Size) and node.dim not in self.context.sizes:
                return None
            if isinstance(node, Scalar) and (node.runtime or node.name not in self.context.params):
                return None
        return evaluate_host(expr, self.context.sizes, self.context.params)

    # ------------------------------------------------------------------------ positions

    def position(self, dim: str) -> Value:
        """The index along ``dim``; a dim of fixed length is put on the tile when first met."""
        if not self.builder.has_position(dim):
            self.place_whole(dim)
        return self.builder.position(dim)

    def tile_axes(self, dims: Iterable[str]) -> frozenset[str]:
        """Those of ``dims`` that the tile has, and no grid or loop fixes.

        A dim that is met here first is put on the tile; they are met in order of name, since a set
        has another order in every process, and the same spec is to give the same kernel.
        """
        return frozenset(d for d in sorted(dims) if self.position(d).axes)

    def place_whole(self, dim: str) -> None:
        """Hold all of a dim of fixed length in the tile."""
        size = self.context.length(dim)
        if size is None:
            raise UnsupportedError(
                f"a kernel would hold the axis {dim} whole, and it may have any length: "
                f"reduce over {dim} in a map of its own, or fix its size"
            )
        builder = self.builder
        block = padded(size, 16)
        builder.tiles[dim] = Tile(dim, block, True, size)
        position = builder.range(dim, None, dim.lower())
        builder.scopes[0].positions[dim] = position
        if block == size:
            builder.promises.add(WholeBlocks(dim, size))
        else:
            limit = builder.constant(size, DType.INT32)
            bound = builder.elementwise("lt", position, limit, dtype=DType.BOOL)
            builder.scopes[0].bounds[dim] = bound

    def bounds_of(self, dims: Iterable[str]) -> Value | None:
        """Which positions of the tile exist, along all of ``dims`` together."""
        mask: Value | None = None
        for dim in sorted(dims):
            self.position(dim)
            mask = self.both(mask, self.builder.bound(dim))
        return mask

    def both(self, a: Value | None, b: Value | None) -> Value | None:
        """The conjunction; None is true."""
        if a is None or b is None or a == b:
            return b if a is None else a
        return self.builder.elementwise("and", a, b, dtype=DType.BOOL, hint="mask")

    # ---------------------------------------------------------------------------- reads

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
        outside = self.builder.constant(_number(fill, dtype), dtype)
        return self.where(mask, self.builder.cast(value, dtype), outside, hint)

    def _read_held(self, x: Expr, at: Mapping[str, Expr], fill: float, hint: str) -> Value:
        """A reduction read along an axis that it reduces: held on the tile, and read there."""
        from .tile_reads import read_from_tile

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
        for dim in buffer.dims:
            if dim in at:
                index = at[dim]
                places.append((dim, self.integer(index, dim.lower())))
                mask = self.both(mask, self.inside(index, dim))
                mask = self.both(mask, self.bounds_of(index.axes))
            else:
                places.append((dim, self.position(dim)))
                mask = self.both(mask, self.builder.bound(dim))
        value = self.builder.load(
            buffer.name, places, mask, _number(fill, buffer.dtype), hint or f"{buffer.name}_tile"
        )
        if value.dtype is DType.INT64 and self.dtype_of(ref) is DType.INT32:
            value = self.builder.cast(value, DType.INT32, hint)
        return value

    def inside(self, index: Expr, dim: str) -> Value | None:
        """Where ``index`` lies within the dim; None if it always does."""
        if self._proves_inside(index, dim):
            return None
        low = None
        if not is_natural(index, self.context.masks):
            low = self.condition(call("ge", index, 0))
        high = self.condition(call("lt", index, Size(dim)))
        return self.both(low, high)

    def _proves_inside(self, index: Expr, dim: str) -> bool:
        equal = self.context.equal
        match index:
            case Index(other) if equal.get(other, other) == equal.get(dim, dim):
                return True
            case Call("floordiv", (Index(head), Call("floordiv", (Size(whole), Size(part))))):
                return whole == head and part == dim and (dim, head) in self.context.heads
        size = self.context.ranges.derived.get(dim)
        known = size is not None and lies_within(index, size)
        return known or self._inside_everywhere(index, dim)

    def _inside_everywhere(self, index: Expr, dim: str) -> bool:
        """Try every position, where all of them are known at compile time."""
        size = self.context.length(dim)
        if size is None or not _is_positional(index) or len(index.axes) > 2:
            return False
        lengths = [self.context.length(d) for d in sorted(index.axes)]
        if any(n is None or n > 1024 for n in lengths):
            return False
        for at in product(*(range(n or 0) for n in lengths)):
            here: dict[Expr, Expr] = {
                Index(d): Literal(p) for d, p in zip(sorted(index.axes), at, strict=True)
            }
            number = self.fixed_number(substitute(index, here))
            if number is None or not 0 <= number < size:
                return False
        return True

    # --------------------------------------------------------------------- elementwise

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

    def where(self, mask: Value, a: Value, b: Value, hint: str = "") -> Value:
        """a where mask holds, b elsewhere."""
        return self.builder.elementwise("where", mask, a, b, dtype=a.dtype, hint=hint)

    # ---------------------------------------------------------------------- reductions

    def _reduce(self, expr: Reduce, hint: str) -> Value:
        from .contraction import reduce_on_tile
        from .groups import without_group
        from .reduction import reduce_in_loop

        if expr.group:
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

    def named(self, value: Value) -> Ref:
        """A name for ``value``, to stand in expressions of the innermost scope."""
        ref = Ref(f"<{value.name}>", value.axes, Kind.REAL)
        self.builder.bind(ref, value, here=True)
        return ref

    def spread(self, value: Value, axes: frozenset[str], hint: str = "") -> Value:
        """``value`` with all of ``axes``, the same along those that it lacks."""
        if axes <= value.axes:
            return value
        zero = self.builder.constant(_number(0, value.dtype), value.dtype, axes)
        return self.builder.elementwise("add", value, zero, dtype=value.dtype, hint=hint)

    def masked(self, value: Value, dim: str, outside: float) -> Value:
        """``value`` with ``outside`` where the tile of ``dim`` has no positions."""
        bound = self.builder.bound(dim)
        if bound is None or dim not in value.axes:
            return value
        fill = self.builder.constant(_number(outside, value.dtype), value.dtype)
        return self.where(bound, value, fill)

    def identity(self, op: str, dtype: DType) -> float | int | bool:
        """The number that changes nothing under ``op``."""
        identity = _IDENTITY[op]
        if not dtype.is_float and not math.isfinite(identity):
            return int(math.copysign(1, identity)) * ((1 << (8 * dtype.size_bytes - 1)) - 1)
        return _number(identity, dtype)

    def merge(self, op: str, a: Value, b: Value, hint: str = "") -> Value:
        """Two partial results of a reduction into one."""
        return self.builder.elementwise(_MERGE[op], a, b, dtype=a.dtype, hint=hint)


_WORDS = {"add": "plus", "sub": "minus", "mul": "times", "div": "per", "floordiv": "per"}


def name_of(expr: Expr) -> str:
    """A name for a number that the host computes: ``H // G`` --> ``H_per_G``."""
    match expr:
        case Size(dim):
            return dim
        case Scalar(name):
            return name
        case Literal(int(value)) if value >= 0:
            return str(value)
        case Call(fn, (a, b)) if fn in _WORDS:
            name = f"{name_of(a)}_{_WORDS[fn]}_{name_of(b)}"
            return name if name[0].isalpha() and len(name) < 32 else "number"
    return "number"


def _has_param(expr: Expr) -> bool:
    return any(isinstance(n, Scalar) for n in walk(expr))


def _is_positional(expr: Expr) -> bool:
    return all(isinstance(n, Literal | Size | Scalar | Call | Index) for n in walk(expr))


def _number(value: float | int | bool, dtype: DType) -> float | int | bool:
    if dtype is DType.BOOL:
        return bool(value)
    return float(value) if dtype.is_float else int(value)
