"""Lists of the positions of one side of pairs that see anything of a stretch of the other side.

A list is made where it is read, in order, without gaps: those that it has are then read together,
as a tile without holes, so that products are of matrices and none is of a pair that is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from ...ir.key_ranges import KeyRanges, Row, Trend
from ...ir.task import Lists
from ...ir.tile import BufferArgument, DType, Value
from ..tiles.evaluator import Evaluator
from ..tiles.key_blocks import Rows, integer
from ..tiles.scope import Loop

Carried = Sequence[tuple[str, Value]]
Index = Sequence[tuple[str, Value]]
Place = Callable[[Value], Index]  # where in a buffer of lists the entry of a number is


def declare(
    evaluator: Evaluator, names: Sequence[str], kept: bool = False, nonnegative: bool = False
) -> None:
    """Declare buffers that the program fills; ``kept``: and reads."""
    for name in names:
        buffer = evaluator.context.buffers[name]
        evaluator.builder.buffer(
            BufferArgument(name, buffer.dims, buffer.dtype, True, nonnegative, kept)
        )


class Span(Rows):
    """Rows from ``first`` to the one before ``end``, for bounds that those two tell."""

    def __init__(self, evaluator: Evaluator, dim: str, first: Value, end: Value) -> None:
        super().__init__(evaluator, dim)
        self.first, self.end = first, end

    def row(self, row: Row) -> Value:
        """The first or last row."""
        if row is Row.FIRST:
            return self.first
        one = self.evaluator.builder.constant(1, DType.INT32)
        return integer(self.evaluator, "sub", self.end, one)


def told_by_ends(ranges: KeyRanges) -> KeyRanges:
    """The bounds that the first or last of any rows tells, without a look at the others."""
    (conjunct,) = ranges.disjuncts
    lower, upper = (
        tuple(b for b in bounds if b.trend is not Trend.UNKNOWN and not b.searches)
        for bounds in (conjunct.lower, conjunct.upper)
    )
    told = replace(conjunct, lower=lower, upper=upper, conditions=())
    return replace(ranges, disjuncts=(told,))


def share(evaluator: Evaluator, lists: Lists, dim: str, size: int) -> tuple[Value, Value]:
    """The first position of ``dim`` in the program's share, of ``size`` of them, and the end."""
    assert lists.shares is not None
    name, count = dim.lower(), evaluator.builder.constant(size, DType.INT32)
    place = evaluator.position(lists.shares)
    first = integer(evaluator, "mul", place, count, hint=f"{name}_first")
    end = integer(evaluator, "add", first, count)
    return first, integer(evaluator, "min", end, evaluator.size(dim), hint=f"{name}_end")


def stretch(evaluator: Evaluator, lists: Lists, dim: str) -> tuple[Value, Value]:
    """The first position of the stretch in force, and its end."""
    length = evaluator.builder.constant(lists.length, DType.INT32)
    first = integer(evaluator, "mul", evaluator.position(lists.stretches), length)
    end = integer(evaluator, "add", first, length)
    return first, integer(evaluator, "min", end, evaluator.size(dim), hint=f"{dim.lower()}_end")


@contextmanager
def blocks(
    evaluator: Evaluator, dim: str, first: Value, end: Value, carried: Carried = ()
) -> Iterator[Loop]:
    """Within: a block of positions from ``first`` on, one after another."""
    builder, name = evaluator.builder, dim.lower()
    with builder.loop(f"{name}_start", first, end, builder.tiles[dim].symbol, carried) as loop:
        position = builder.range(dim, loop.variable, name)
        exists = builder.elementwise("lt", position, end, dtype=DType.BOOL, hint=f"{name}_exists")
        builder.place(dim, position, exists)
        builder.comment(f"a block of {dim}")
        loop.yields = ()
        yield loop


def list_places(
    evaluator: Evaluator, lists: Lists, place: Place, first: Value, end: Value
) -> Value:
    """List the positions from ``first`` to ``end`` that see something of the stretch in force; how
    many they are."""
    builder = evaluator.builder
    start = [("count", builder.constant(0, DType.INT32))]
    with blocks(evaluator, lists.along, first, end, start) as loop:
        (count,) = loop.carried
        chosen = evaluator.condition(lists.chosen, "chosen")
        chosen = evaluator.both(chosen, builder.bound(lists.along)) or chosen
        flag = builder.cast(chosen, DType.INT32)
        before = integer(evaluator, "sub", count, builder.constant(1, DType.INT32))
        before = integer(evaluator, "add", before, builder.scan(flag, lists.along))
        builder.store(lists.places, place(before), builder.position(lists.along), chosen)
        added = builder.reduce("sum", flag, lists.along)
        loop.yields = (integer(evaluator, "add", count, added),)
    return loop.results[0]
