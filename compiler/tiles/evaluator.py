"""What schedules ask of a tile: where positions are, what exists, and the value of an expression.

How an expression becomes ops is ``evaluation``'s; what is here needs none of it, so that the parts
of an evaluation (contractions, reductions, reads from the tile) stand on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import product

from ...ir.errors import UnsupportedError
from ...ir.expression import Call, Expr, Index, Kind, Literal, Ref, Scalar, Size, call
from ...ir.host import evaluate_host, is_host
from ...ir.promises import WholeBlocks
from ...ir.reductions import REPEATED, identity, whole_identity
from ...ir.rewriting import substitute, walk
from ...ir.tile import DType, SizeArgument, Tile, Value
from ...ir.verify_plan import LONGEST
from ..analysis.distances import lies_within
from ..analysis.facts import is_nonnegative
from .builder import KIND_DTYPE, Builder
from .context import Context, padded


class Evaluator(ABC):
    """Expressions to values, on one builder."""

    def __init__(self, builder: Builder, context: Context) -> None:
        self.builder = builder
        # Sizes, too, are called as the spec and passes call them.
        builder.naming.reserve([*context.params, *context.runtime, *context.ranges.derived])
        self.context = context
        self.zero_outside: set[str] = set()  # names of values that are 0 where no positions are

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

    @abstractmethod
    def _evaluate(self, expr: Expr, hint: str) -> Value:
        """The value of what has none yet."""

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
        nonnegative = is_nonnegative(expr, self.context.masks)
        return self.builder.host_argument(name, dtype, expr, fixed is not None, nonnegative)

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

    def inside(self, index: Expr, dim: str) -> Value | None:
        """Where ``index`` lies within the dim; None if it always does."""
        if self._proves_inside(index, dim):
            return None
        low = None
        if not is_nonnegative(index, self.context.masks):
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

    def where(self, mask: Value, a: Value, b: Value, hint: str = "") -> Value:
        """a where mask holds, b elsewhere."""
        return self.builder.elementwise("where", mask, a, b, dtype=a.dtype, hint=hint)

    def named(self, value: Value) -> Ref:
        """A name for ``value``, to stand in expressions of the innermost scope."""
        ref = Ref(f"<{value.name}>", value.axes, Kind.REAL)
        self.builder.bind(ref, value, here=True)
        return ref

    def spread(self, value: Value, axes: frozenset[str], hint: str = "") -> Value:
        """``value`` with all of ``axes``, the same along those that it lacks."""
        if axes <= value.axes:
            return value
        zero = self.builder.constant(number_in(0, value.dtype), value.dtype, axes)
        return self.builder.elementwise("add", value, zero, dtype=value.dtype, hint=hint)

    def masked(self, value: Value, dim: str, outside: float, hint: str = "") -> Value:
        """``value`` with ``outside`` where the tile of ``dim`` has no positions."""
        bound = self.builder.bound(dim)
        if bound is None or dim not in value.axes:
            return value
        fill = self.builder.constant(number_in(outside, value.dtype), value.dtype)
        return self.where(bound, value, fill, hint)

    def identity(self, op: str, dtype: DType) -> float | int | bool:
        """The number that changes nothing under ``op``."""
        if dtype.is_float or dtype is DType.BOOL:
            return number_in(identity(op), dtype)
        return whole_identity(op, 8 * dtype.size_bytes)

    def merge(self, op: str, a: Value, b: Value, hint: str = "") -> Value:
        """Two partial results of a reduction into one."""
        # truths that a loop carries are integers, 0 and 1
        fn = {"or": "max", "and": "min"}.get(REPEATED[op], REPEATED[op])
        return self.builder.elementwise(fn, a, b, dtype=a.dtype, hint=hint)


def clipped(builder: Builder, value: Value, low: int, high: int) -> Value:
    """A 64-bit value between two numbers of 32 bits, as 32 bits."""
    for fn, end in (("max", low), ("min", high)):
        limit = builder.constant(end, DType.INT64)
        value = builder.elementwise(fn, value, limit, dtype=DType.INT64)
    return builder.cast(value, DType.INT32)


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


def number_in(value: float | int | bool, dtype: DType) -> float | int | bool:
    """A number as values of a type have it."""
    if dtype is DType.BOOL:
        return bool(value)
    assert dtype.is_float or float(value).is_integer(), f"{value} as {dtype}"
    return float(value) if dtype.is_float else int(value)
