"""The tile level: what one kernel does, in structured form.

A program is a grid, arguments and a list of ops. A value's type is its dtype and the *named* axes
of its tile; a value without axes is a scalar. No op broadcasts or transposes: values meet by axis
name, and a backend derives the layout. Along a tiled dim a program holds ``BLOCK_<dim>`` positions.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import gcd

from .expression import Expr
from .promises import CommonBlocks, DividingBlocks, Promise
from .transform import Transform


class DType(enum.Enum):
    """The type of one element."""

    BOOL = "bool"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"

    @property
    def is_float(self) -> bool:
        """Whether values are real numbers."""
        return self in (DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32)

    @property
    def is_narrow(self) -> bool:
        """Whether arithmetic happens in a wider type."""
        return self in (DType.FLOAT16, DType.BFLOAT16)

    @property
    def size_bytes(self) -> int:
        """Bytes an element takes in memory."""
        return 2 if self.is_narrow else {DType.BOOL: 1, DType.INT64: 8}.get(self, 4)


@dataclass(frozen=True, slots=True)
class Value:
    """A named result: made once, never changed."""

    name: str
    dtype: DType
    axes: frozenset[str] = frozenset()

    def __str__(self) -> str:
        axes = ", ".join(sorted(self.axes))
        return f"{self.name}: {self.dtype.value}[{axes}]"


@dataclass(frozen=True, slots=True)
class Tile:
    """How a dim is cut: ``block`` positions at a time.

    ``whole`` tiles hold the dim at once (``size`` positions, padded to ``block``); the others
    have ``block`` as a knob with this default. ``like``: a second axis over the positions of that
    dim's tile, whose block it always has.
    """

    dim: str
    block: int
    whole: bool = False
    size: int | None = None
    like: str | None = None

    @property
    def symbol(self) -> str:
        """The block size's name in emitted code."""
        return f"BLOCK_{self.like or self.dim}"


@dataclass(frozen=True, slots=True)
class BufferArgument:
    """A tensor in memory, with one stride per dim; ``nonnegative``: no integer in it is < 0.

    ``kept``: a program reads again what it has written itself, and no other program's places.
    """

    name: str
    dims: tuple[str, ...]
    dtype: DType
    written: bool = False
    nonnegative: bool = False
    kept: bool = False


@dataclass(frozen=True, slots=True)
class SizeArgument:
    """The number of positions along a dim, known at run time."""

    dim: str


@dataclass(frozen=True, slots=True)
class HostArgument:
    """A number that the host computes from sizes and params before the launch.

    ``fixed``: all it depends on is known at compile time; ``nonnegative``: it is never negative.
    """

    name: str
    dtype: DType
    value: Expr
    fixed: bool = False
    nonnegative: bool = False


@dataclass(frozen=True, slots=True)
class ParamArgument:
    """A param: compile-time, or given at each call (``runtime``)."""

    name: str
    dtype: DType
    runtime: bool = False
    nonnegative: bool = False


Argument = BufferArgument | SizeArgument | HostArgument | ParamArgument


@dataclass(frozen=True, slots=True)
class GridAxis:
    """One axis of the grid: a position (scalar) of ``dim``, or the start of a block of it.

    ``descending``: the last block first, because it has the most work.
    """

    dim: str
    position: Value
    tiled: bool = False
    descending: bool = False


# --------------------------------------------------------------------------------------- ops


@dataclass(frozen=True, slots=True)
class Constant:
    """``out`` = a number, the same everywhere on its tile."""

    out: Value
    value: float | int | bool


@dataclass(frozen=True, slots=True)
class Range:
    """``out`` = start, start + 1, ... along its one axis; without a start, from 0."""

    out: Value
    start: Value | None


@dataclass(frozen=True, slots=True)
class Elementwise:
    """``out`` = fn(args), fn from ``node.ELEMENTWISE``, or ``node.AS_FLOAT``."""

    out: Value
    fn: str
    args: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """``out`` = x in out's dtype (to an integer: toward zero)."""

    out: Value
    x: Value


@dataclass(frozen=True, slots=True)
class Load:
    """``out`` = the buffer's elements at ``index`` (one value per dim), ``fill`` where not mask.

    ``again``: another load reads the same, and no compiler may make one of the two.
    """

    out: Value
    buffer: str
    index: tuple[tuple[str, Value], ...]
    mask: Value | None = None
    fill: float | int | bool = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    """Write ``value`` to the buffer at ``index`` where ``mask`` holds.

    ``add``: to what is there; no other program of the kernel touches these elements.
    """

    buffer: str
    index: tuple[tuple[str, Value], ...]
    value: Value
    mask: Value | None = None
    add: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """``out`` = sum over the axis ``over`` of a * b (+ acc), accumulated in float32.

    ``masked``: where a is 0, what b holds is hidden, even NaN; ``exact``: float32 loses no bits.
    """

    out: Value
    a: Value
    b: Value
    over: str
    acc: Value | None = None
    masked: bool = False
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Reduce:
    """``out`` = op (sum max min prod any all) of x over one axis."""

    out: Value
    op: str
    x: Value
    over: str


@dataclass(frozen=True, slots=True)
class Scan:
    """``out`` = the running ``op`` (sum prod max) of x along one axis, the position included."""

    out: Value
    x: Value
    over: str
    reverse: bool = False
    op: str = "sum"


@dataclass(frozen=True, slots=True)
class Combine:
    """A running combination along one axis: ``outs`` at n is xs at 0 ... n, put together in order.

    ``body`` computes ``results`` from two neighbouring stretches, ``left`` before ``right`` (with
    ``reverse``: the one nearer to the end is left); it is associative and holds elementwise ops
    and constants alone. All of xs have the same axes, and so do left, right and results, one each.
    """

    outs: tuple[Value, ...]
    xs: tuple[Value, ...]
    over: str
    left: tuple[Value, ...]
    right: tuple[Value, ...]
    body: tuple[Op, ...]
    results: tuple[Value, ...]
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Rename:
    """``out`` = x with its axis ``axis`` called ``to``, a dim of the same block: nothing moves."""

    out: Value
    x: Value
    axis: str
    to: str


@dataclass(frozen=True, slots=True)
class Substitute:
    """``out`` at row t = b at t + the sum over s < t of a[t, s] * out at s: a triangular solve.

    ``a`` is float32 with the axes ``rows`` and ``columns`` (two dims of one block), of which what
    lies on and above the diagonal is not read; ``b`` and ``out`` have ``rows``, float32.
    """

    out: Value
    a: Value
    b: Value
    rows: str
    columns: str


@dataclass(frozen=True, slots=True)
class Solve:
    """``out`` = the x along ``right`` for which sum(matrix * x, right) == vector, for each left.

    ``matrix`` has the axes ``left`` and ``right`` of whole tiles of one size; ``vector`` has
    ``left`` and any others. Positions past the size are 0 in both and in ``out``. All float32.
    """

    out: Value
    matrix: Value
    vector: Value
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Search:
    """``out`` = how many of a sorted table's entries along ``dim`` are < value (``side`` left)
    or <= value (``side`` right); ``index`` places the other dims, ``size`` is the dim's length.
    """

    out: Value
    buffer: str
    index: tuple[tuple[str, Value], ...]
    dim: str
    size: Value
    value: Value
    side: str = "left"


@dataclass(frozen=True, slots=True)
class Convolve:
    """result[row] = the sum over lag of kernel[lag] * signal[row_sign * row + lag_sign * lag +
    offset], 0 outside the signal: for the block of ``lanes``, summed over ``summed``, too.

    The names are buffers. ``index`` has the places of the grid's axes, ``sizes`` all other lengths.
    """

    result: str
    kernel: str
    signal: str
    row: str
    lag: str
    over: str
    row_sign: int
    lag_sign: int
    offset: Value
    index: tuple[tuple[str, Value], ...]
    sizes: tuple[tuple[str, Value], ...]
    summed: tuple[str, ...] = ()
    lanes: str | None = None


@dataclass(frozen=True, slots=True)
class Carried:
    """A value that a loop hands from turn to turn: ``inner`` in the body, ``out`` after it."""

    inner: Value
    initial: Value
    out: Value


@dataclass(frozen=True, slots=True)
class For:
    """For ``variable`` = start, start + step, ... below stop; ``yields`` are handed over."""

    variable: Value
    start: Value
    stop: Value
    step: str | int  # a block symbol or a number
    carried: tuple[Carried, ...]
    body: tuple[Op, ...]
    yields: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Comment:
    """A line for the reader of the emitted code."""

    text: str


Op = (
    Constant
    | Range
    | Elementwise
    | Cast
    | Load
    | Store
    | Dot
    | Reduce
    | Scan
    | Combine
    | Rename
    | Substitute
    | Solve
    | Search
    | Convolve
    | Transform
    | For
    | Comment
)


@dataclass(frozen=True, slots=True)
class Program:
    """One kernel.

    ``launch`` holds knobs that are no block sizes (warps, pipeline stages) with their defaults;
    ``promises`` what blocks and lengths have to keep, because bounds were left out for it.
    """

    name: str
    arguments: tuple[Argument, ...]
    grid: tuple[GridAxis, ...]
    tiles: tuple[Tile, ...]
    body: tuple[Op, ...]
    launch: tuple[tuple[str, int], ...] = ()
    about: str = field(default="", compare=False)
    promises: tuple[Promise, ...] = ()

    def tile(self, dim: str) -> Tile:
        """How ``dim`` is cut."""
        return next(t for t in self.tiles if t.dim == dim)

    def admits(self, dim: str, block: int) -> bool:
        """Whether what was promised of the blocks of ``dim`` holds for blocks of this size."""
        promises = (p for p in self.promises if not isinstance(p, CommonBlocks) and p.dim == dim)
        return all(promise.is_kept_by(block) for promise in promises)

    @property
    def common_blocks(self) -> tuple[CommonBlocks, ...]:
        """What the program has to cut as others do."""
        cut = {tile.dim for tile in self.tiles}
        return tuple(p for p in self.promises if isinstance(p, CommonBlocks) and p.dim in cut)

    def with_blocks(self, blocks: Mapping[str, int]) -> Program:
        """The program with other blocks for some dims; what is like a dim follows it.

        A block that has to divide a length is the largest part of what is wanted that does.
        """
        fitting = dict(blocks)
        for promise in self.promises:
            if isinstance(promise, DividingBlocks) and promise.dim in fitting:
                fitting[promise.dim] = gcd(fitting[promise.dim], promise.length)
        tiles = (replace(t, block=fitting.get(t.like or t.dim, t.block)) for t in self.tiles)
        return replace(self, tiles=tuple(tiles))

    def step(self, loop: For) -> int:
        """How far a loop goes at a turn."""
        if isinstance(loop.step, int):
            return loop.step
        return next(tile.block for tile in self.tiles if tile.symbol == loop.step)

    @property
    def blocks(self) -> tuple[Tile, ...]:
        """The tiles whose blocks are numbers of their own."""
        return tuple(t for t in self.tiles if t.like is None)

    @property
    def buffers(self) -> dict[str, BufferArgument]:
        """The tensors by name."""
        return {a.name: a for a in self.arguments if isinstance(a, BufferArgument)}


def operands(op: Op) -> tuple[Value, ...]:
    """The values that an op reads; a loop's body is not entered."""
    match op:
        case Constant() | Comment() | Transform():
            return ()
        case Range(_, start):
            return () if start is None else (start,)
        case Elementwise(_, _, args):
            return args
        case Cast(_, x) | Reduce(_, _, x, _) | Scan(_, x) | Rename(_, x):
            return (x,)
        case Combine(_, xs):
            return xs
        case Substitute(_, a, b) | Solve(_, a, b):
            return (a, b)
        case Load(_, _, index, mask, _):
            return (*(v for _, v in index), *(() if mask is None else (mask,)))
        case Store(_, index, value, mask):
            return (*(v for _, v in index), value, *(() if mask is None else (mask,)))
        case Dot(_, a, b, _, acc):
            return (a, b) if acc is None else (a, b, acc)
        case Search(_, _, index, _, size, value, _):
            return (*(v for _, v in index), size, value)
        case Convolve(offset=offset, index=index, sizes=sizes):
            return (offset, *(v for _, v in (*index, *sizes)))
        case For(_, start, stop, _, carried, _, _):
            return (start, stop, *(c.initial for c in carried))


def made_by(op: Op) -> tuple[Value, ...]:
    """The values that an op makes for what follows it."""
    match op:
        case Store() | Convolve() | Transform() | Comment():
            return ()
        case For(carried=carried):
            return tuple(c.out for c in carried)
        case Combine(outs):
            return outs
        case _:
            return (op.out,)


def all_ops(body: tuple[Op, ...]) -> Iterator[Op]:
    """Every op, loops before their bodies."""
    for op in body:
        yield op
        if isinstance(op, For):
            yield from all_ops(op.body)
