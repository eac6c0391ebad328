"""The value of a rank along a long axis: where the first few of an order end.

    rank(x, J) < k  -->  x > least or (x == least and j <= last)

``least`` is the k-th largest number of a row and ``last`` the place of the last of its equals that
is among the first k. A row is gone through once for each of its k largest numbers, where counting
what is larger takes a turn for each number of the row, and a count of each to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from ...ir.expression import Size, call
from ...ir.task import SelectionTask
from ...ir.tile import BufferArgument, DType, Program, Tile, Value
from ..tiles.builder import Builder
from ..tiles.context import Context
from ..tiles.evaluation import TileEvaluator
from ..tiles.evaluator import Evaluator
from ..tiles.grid import place_grid, store_result
from .candidates import Candidates
from .defaults import LIGHT, pointwise_blocks
from .few_largest import few_largest

Carried = Sequence[tuple[str, Value]]
# The numbers of a block and what is carried --> what is carried on.
LoopBody = Callable[[Value, tuple[Value, ...]], tuple[Value, ...]]


def selection(task: SelectionTask, context: Context) -> Program:
    """The tile program that fills the two buffers, cut along ``tiled``."""
    tiled = task.tiled
    context = context.with_blocks(pointwise_blocks((*tiled, task.over)))
    builder = Builder(task.name)
    evaluator = TileEvaluator(builder, context)
    dims = context.buffers[task.least].dims
    for buffer in (context.buffers[task.least], context.buffers[task.last]):
        builder.buffer(BufferArgument(buffer.name, buffer.dims, buffer.dtype, written=True))
    place_grid(evaluator, [d for d in dims if d not in tiled], None)
    for dim in tiled:
        place_grid(evaluator, [dim], dim)
    rows = evaluator.tile_axes(dims)
    least, last = few_largest(evaluator, task, rows) or _by_turns(evaluator, task, rows)
    store_result(evaluator, task.least, least)
    store_result(evaluator, task.last, last)
    return builder.finish(context.launch(LIGHT), task.about)


def _by_turns(
    evaluator: Evaluator, task: SelectionTask, rows: frozenset[str]
) -> tuple[Value, Value]:
    """The least that is kept and the last of its equals, however many are kept."""
    blocks = evaluator.context.blocks
    evaluator.builder.tiles[task.over] = Tile(task.over, blocks.get(task.over, 64))
    row = _Row(evaluator, task, rows)
    least = row.least()
    return least, row.last(least)


class _Row(Candidates):
    """The writer of the passes over rows of the tile."""

    def __init__(self, evaluator: Evaluator, task: SelectionTask, rows: frozenset[str]) -> None:
        super().__init__(evaluator, task, rows)
        most = call("min", task.kept, Size(task.over))  # fits 32 bits whatever is asked for
        self.kept = self.builder.cast(evaluator.evaluate(most, "kept"), DType.INT32)
        self.candidates: Value | None = None  # of the block in force

    def least(self) -> Value:
        """From one number to the next smaller one, until as many are as large as are kept."""
        builder = self.builder
        turns = self.kept
        for dim in sorted(turns.axes):  # the rows of a tile take the turns of the longest
            turns = builder.reduce("max", turns, dim, "turns")
        start = [("least", self.number(inf))]
        with builder.loop("turn", self._whole(0), turns, 1, start) as loop:
            (so_far,) = loop.carried

            def body(x: Value, state: tuple[Value, ...]) -> tuple[Value, ...]:
                as_large = self._those("ge", x, so_far)
                smaller = self.evaluator.where(self._those("lt", x, so_far), x, self.number(-inf))
                best = builder.reduce("max", smaller, self.task.over)
                following = builder.elementwise("max", state[1], best, dtype=DType.FLOAT32)
                return self._counted(as_large, state[0]), following

            start = [("count", self._whole(0, self.rows)), ("following", self.number(-inf))]
            count, following = self._walk(start, body)
            enough = self.compared("ge", count, self.kept)
            loop.yields = (self.evaluator.where(enough, so_far, following),)
        return loop.results[0]

    def last(self, least: Value) -> Value:
        """The place of the last equal for which there is room."""
        builder, over = self.builder, self.task.over
        none = self._whole(0, self.rows)
        (larger,) = self._walk(
            [("larger", none)],
            lambda x, state: (self._counted(self._those("gt", x, least), state[0]),),
        )
        room = builder.elementwise("sub", self.kept, larger, dtype=DType.INT32, hint="room")

        def body(x: Value, state: tuple[Value, ...]) -> tuple[Value, ...]:
            equal = self._those("eq", x, least)
            number = builder.scan(self._flag(equal), over)
            number = builder.elementwise("add", number, state[0], dtype=DType.INT32)
            fits = self.evaluator.both(equal, self.compared("le", number, room))
            assert fits is not None
            place = self.evaluator.where(fits, builder.position(over), self._whole(-1))
            best = builder.reduce("max", place, over)
            further = builder.elementwise("max", state[1], best, dtype=DType.INT32)
            return self._counted(equal, state[0]), further

        _, last = self._walk([("equals", none), ("last", self._whole(-1, self.rows))], body)
        return last

    def _walk(self, carried: Carried, body: LoopBody) -> tuple[Value, ...]:
        """One pass over the axis."""
        builder, over = self.builder, self.task.over
        size, block = self.evaluator.size(over), builder.block(over)
        start, zero = f"{over.lower()}_start", self._whole(0)
        with builder.loop(start, zero, size, block.name, carried) as loop:
            position = builder.range(over, loop.variable, over.lower())
            exists = builder.elementwise("lt", position, size, dtype=DType.BOOL)
            builder.place(over, position, exists)
            x, among = self.candidate()
            self.candidates = self.evaluator.both(exists, among)
            loop.yields = body(x, loop.carried)
        return loop.results

    def _counted(self, flags: Value, so_far: Value) -> Value:
        number = self.builder.reduce("sum", self._flag(flags), self.task.over)
        return self.builder.elementwise("add", so_far, number, dtype=DType.INT32)

    def _flag(self, value: Value) -> Value:
        return self.builder.cast(value, DType.INT32)

    def _those(self, fn: str, x: Value, bound: Value) -> Value:
        """The candidates of the block for which it holds."""
        those = self.evaluator.both(self.candidates, self.compared(fn, x, bound))
        assert those is not None
        return those

    def _whole(self, value: int, axes: frozenset[str] = frozenset()) -> Value:
        return self.builder.constant(value, DType.INT32, axes)
