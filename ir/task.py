"""Tasks: what each kernel of a plan computes, as data, before any block size.

A task names what it computes, over which axes, and the buffers that it writes; the names that its
expressions read are buffers, or come about inside (``local``). It says nothing of blocks, warps or
registers: a schedule makes a tile program of it for a target.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from .expression import Cumsum, Expr, Ref
from .kernel_task import KernelTask
from .key_ranges import KeyRanges
from .names import names_in
from .normaliser import Plain, Rescaled
from .recurrence_tasks import ChunkTask, LoopTask, ScanTask
from .selection_tasks import ChoiceTask, EndsTask
from .transform import Transform

# ------------------------------------------------------------------------------ attention


@dataclass(frozen=True, slots=True)
class BlockTable:
    """Buffers of a table: ``starts`` [*dims, row blocks, key blocks] and ``counts`` without keys.

    ``dims`` are the axes of the mask that are neither rows nor keys; ``row_blocks`` and
    ``key_blocks`` are the dims that count blocks.
    """

    starts: str
    counts: str
    dims: tuple[str, ...]
    block: str
    over: str
    row_blocks: str
    key_blocks: str


@dataclass(frozen=True, slots=True)
class Split:
    """Keys in shares: ``dim`` counts them; the others are buffers of partial results, with it."""

    dim: str
    outputs: tuple[str, ...]
    row_sum: str
    row_max: str | None


@dataclass(frozen=True, slots=True)
class AttentionTask(KernelTask):
    """One attention: names written out, statistics in buffers.

    ``form`` is how the weights are normalised in one pass. ``outputs`` pair a buffer with what is
    summed; ``row_sum``, ``row_max`` and ``lse`` name buffers for the row's sum, the maximum (to
    base 2) that it is relative to, and the sum's logarithm. Programs that differ in the position of
    a value's own axis (a batch of values under one score) compute the same weights.

    ``across`` pairs a float32 buffer with what is summed along ``block`` instead, a result for each
    position of ``over``. Such sums grow in memory from one block of rows to the next, so that one
    program takes all rows of its heads, in turn.
    """

    schedule: ClassVar[str] = "flash"

    name: str
    over: str
    block: str
    queries: tuple[str, ...]
    values: tuple[str, ...]  # axes that only what is summed has
    score: Expr
    mask: Expr | None
    ranges: KeyRanges
    form: Rescaled | Plain
    sink: Expr | None
    gain: Expr | None
    outputs: tuple[tuple[str, Expr], ...]
    lse: str | None = None
    row_sum: str | None = None
    row_max: str | None = None
    about: str = ""
    reason: str = ""
    table: BlockTable | None = None
    split: Split | None = None
    across: tuple[tuple[str, Expr], ...] = ()

    @property
    def sums(self) -> tuple[tuple[str, Expr], ...]:
        """Every weighted sum, whichever way it goes."""
        return (*self.outputs, *self.across)

    @property
    def computes(self) -> tuple[str, ...]:
        """The results by name: in shares, other kernels bring them together."""
        return (*(name for name, _ in self.sums), *filter(None, (self.lse,)))

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that the kernel fills."""
        if self.split is not None:
            parts = (self.split.row_sum, self.split.row_max)
            return (*self.split.outputs, *filter(None, parts))
        rows = (self.lse, self.row_sum, self.row_max)
        return (*(name for name, _ in self.sums), *filter(None, rows))

    @property
    def expressions(self) -> Iterator[Expr]:
        """Every expression that the kernel evaluates."""
        yield from self._of_pairs
        yield from self.form.expressions

    @property
    def _of_pairs(self) -> Iterator[Expr]:
        """Those that do not depend on the form of the weights."""
        yield self.score
        yield from (e for e in (self.mask, self.sink, self.gain) if e is not None)
        yield from (value for _, value in self.sums)
        yield from _range_terms(self.ranges)

    @property
    def tables(self) -> tuple[str, ...]:
        """Buffers that are read beside those of the expressions."""
        return () if self.table is None else (self.table.starts, self.table.counts)

    @property
    def local(self) -> frozenset[str]:
        """Names in the expressions that the kernel itself gives a value."""
        return frozenset({"score", "total", "scale"}) | _searched(self.ranges)

    @property
    def reads(self) -> frozenset[str]:
        """What an input is called may be local in the form, and there alone."""
        others = names_in(*self._of_pairs) - _searched(self.ranges)
        return others | (names_in(*self.form.expressions) - self.local)


@dataclass(frozen=True, slots=True)
class Lists:
    """Which positions of one side of the pairs see anything of a stretch of the other side.

    ``chosen`` says which do, of those ``along`` their dim. ``places`` is an int32 buffer with a
    list, in order, of one stretch after another. A stretch is ``length`` positions. ``shares``
    counts the programs of a head, which take ``size`` rows each; None: one takes all. ``mask`` is
    the whole mask of the pairs.
    """

    places: str
    chosen: Expr
    along: str
    stretches: str
    shares: str | None
    length: int
    size: int
    mask: Expr


@dataclass(frozen=True, slots=True)
class ListedTask(AttentionTask):
    """An attention by stretches of one side, each with the positions listed for it of the other.

    ``mask`` is what is left to see of a stretch by a position that is listed for it.
    """

    lists: Lists | None = None

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that the kernel fills."""
        places = () if self.lists is None else (self.lists.places,)
        return (*super(ListedTask, self).writes, *places)

    @property
    def _of_pairs(self) -> Iterator[Expr]:
        """Those that do not depend on the form of the weights."""
        yield from super(ListedTask, self)._of_pairs
        if self.lists is not None:
            yield self.lists.chosen


@dataclass(frozen=True, slots=True)
class ListedRowsTask(ListedTask):
    """An attention whose programs go through stretches of keys, each with the rows listed for it.

    ``kept`` are float32 buffers for what a row carries from stretch to stretch: its maximum where
    there is one, its sum, and what its outputs are so far.
    """

    schedule: ClassVar[str] = "listed rows"

    kept: tuple[str, ...] = ()

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that the kernel fills."""
        return (*super(ListedRowsTask, self).writes, *self.kept)


@dataclass(frozen=True, slots=True)
class ListedKeysTask(ListedTask):
    """An attention whose programs go through stretches of rows, each with the keys listed for it.

    All rows of a stretch have chosen the same keys, of which each then sees what ``mask`` says.
    """

    schedule: ClassVar[str] = "listed keys"


@dataclass(frozen=True, slots=True)
class BlockTableTask(KernelTask):
    """Fill a table of the key blocks with anything that a block of rows sees."""

    schedule: ClassVar[str] = "block table"

    name: str
    table: BlockTable
    mask: Expr
    ranges: KeyRanges
    about: str = ""
    reason: str = ""

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that the kernel fills."""
        return self.table.starts, self.table.counts

    @property
    def expressions(self) -> Iterator[Expr]:
        """Every expression that the kernel evaluates."""
        yield self.mask
        yield from (*_range_terms(self.ranges), *self.ranges.rest)

    @property
    def local(self) -> frozenset[str]:
        """Names in the expressions that the kernel itself gives a value."""
        return _searched(self.ranges)


def _range_terms(ranges: KeyRanges) -> Iterator[Expr]:
    for conjunct in ranges.disjuncts:
        for bound in conjunct.bounds:
            yield from (bound.loose, bound.tight)
            for search in bound.searches:
                yield from (search.table, search.value)
        yield from (condition.value for condition in conjunct.conditions)


def _searched(ranges: KeyRanges) -> frozenset[str]:
    bounds = (bound for conjunct in ranges.disjuncts for bound in conjunct.bounds)
    return frozenset(search.name for bound in bounds for search in bound.searches)


# -------------------------------------------------------------------------- everything else


@dataclass(frozen=True, slots=True)
class PointwiseTask(KernelTask):
    """One value into one buffer; programs take tiles along ``tiled``.

    ``beside`` are more buffers along the same axes, each with its value, that the programs fill.
    """

    schedule: ClassVar[str] = "pointwise"

    name: str
    result: str
    value: Expr
    tiled: tuple[str, ...]
    about: str = ""
    reason: str = ""
    beside: tuple[tuple[str, Expr], ...] = ()

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that the kernel fills."""
        return (self.result, *(name for name, _ in self.beside))

    @property
    def expressions(self) -> Iterator[Expr]:
        """Every expression that the kernel evaluates."""
        yield self.value
        yield from (value for _, value in self.beside)


@dataclass(frozen=True, slots=True)
class RunningSumTask(PointwiseTask):
    """A running sum along an axis that no tile holds, block by block.

    ``start``, which lacks that axis, is what the sum is before its first row.
    """

    schedule: ClassVar[str] = "running sum"

    start: Expr | None = None

    @property
    def expressions(self) -> Iterator[Expr]:
        """Every expression that the kernel evaluates."""
        yield self.value
        if self.start is not None:
            yield self.start

    @property
    def sum(self) -> Cumsum:
        """The value, which is a running sum."""
        assert isinstance(self.value, Cumsum)
        return self.value


@dataclass(frozen=True, slots=True)
class ConvolutionTask(KernelTask):
    """``result`` at ``row``: the sum over ``lag`` of kernel[lag] * signal[place], along ``over``.

    place = row_sign * row + lag_sign * lag + offset; outside its axis the signal is 0. The sum runs
    over ``summed``, too; programs take blocks of ``lanes``.
    """

    schedule: ClassVar[str] = "convolution"

    name: str
    result: str
    kernel: Ref
    signal: Ref
    row: str
    lag: str
    over: str
    row_sign: int
    lag_sign: int
    offset: Expr
    summed: tuple[str, ...] = ()
    lanes: str | None = None
    about: str = ""
    reason: str = ""

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that the kernel fills."""
        return (self.result,)

    @property
    def expressions(self) -> Iterator[Expr]:
        """Every expression that the kernel evaluates."""
        yield from (self.kernel, self.signal, self.offset)

    @property
    def axes(self) -> frozenset[str]:
        """Those of the result."""
        kept = (self.kernel.axes - {self.lag}) | (self.signal.axes - {self.over})
        return (kept - {*self.summed}) | {self.row}


@dataclass(frozen=True, slots=True)
class TransformTask(KernelTask):
    """Fourier transforms along axes of a buffer, or of two that are its parts."""

    schedule: ClassVar[str] = "transform"

    name: str
    transform: Transform
    about: str = ""
    reason: str = ""

    @classmethod
    def of(cls, name: str, transform: Transform) -> TransformTask:
        """The task of a transform, with what is said of it."""
        given = " and ".join(operand.buffer for operand in transform.operands)
        over = " and ".join(turn.over for turn in transform.turns)
        sums = "a long Fourier sum" if len(transform.turns) == 1 else "long Fourier sums"
        about = f"{', '.join(transform.results)}: {given}, transformed along {over}"
        return cls(name, transform, about, f"{sums} over {over}, by a fast transform")

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that the transform fills."""
        return self.transform.results

    @property
    def expressions(self) -> Iterator[Expr]:
        """None: what is transformed is in buffers."""
        return iter(())

    @property
    def tables(self) -> tuple[str, ...]:
        """The buffers that are transformed."""
        return tuple(operand.buffer for operand in self.transform.operands)


@dataclass(frozen=True, slots=True)
class PartTask(KernelTask):
    """A part of ``of``, which is what its parts compute together, from and to the buffers named."""

    schedule: ClassVar[str] = "part"

    name: str
    of: ChunkTask
    writes: tuple[str, ...]
    tables: tuple[str, ...]
    about: str = ""
    reason: str = ""

    @property
    def expressions(self) -> Iterator[Expr]:
        """None: which values cross from part to part is found in the programs."""
        return iter(())


Task = (
    AttentionTask
    | BlockTableTask
    | ChunkTask
    | ConvolutionTask
    | ScanTask
    | LoopTask
    | PartTask
    | PointwiseTask
    | RunningSumTask
    | ChoiceTask
    | EndsTask
    | TransformTask
)


def buffers_of(task: Task) -> frozenset[str]:
    """The names that a task writes, and those that it reads and does not make: its buffers."""
    return task.reads | {*task.writes, *task.tables}
