"""A program that walks blocks of rows, cut in programs: what all blocks can do at once is apart.

    for t: a; b(a, state); state' = c(a, state); o = d(b)
    --> for each t at once: a, stored;  for t: b(a, state), state' = c(a, state), o = d(b)

What is stored for a block is stored as its tile, whole: rows past the last are as they were.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from ...ir.names import free_name
from ...ir.promises import CommonBlocks, WholeBlocks
from ...ir.tile import (
    Argument,
    BufferArgument,
    Comment,
    DType,
    Elementwise,
    For,
    GridAxis,
    HostArgument,
    Load,
    Op,
    ParamArgument,
    Program,
    Range,
    Search,
    SizeArgument,
    Store,
    Tile,
    Value,
    all_ops,
    made_by,
    operands,
)
from .invert_triangles import Inverses
from .program_cut import cut_by_bytes, free_values, is_cheap, reached_by, reaching
from .remove_dead_ops import remove_dead_ops


@dataclass(frozen=True, slots=True)
class Stored:
    """A value between two programs: a buffer with ``dims``, an index value for each."""

    value: Value
    buffer: str
    index: tuple[tuple[str, Value], ...]
    mask: Value | None = None

    @property
    def dims(self) -> tuple[str, ...]:
        """The axes of the buffer."""
        return tuple(dim for dim, _ in self.index)


@dataclass(frozen=True, slots=True)
class Parts:
    """Programs in their order, and what is between them.

    ``lengths`` are dims of buffers as long as a block of another, ``tiles`` those of a number.
    """

    programs: tuple[Program, ...]
    stored: tuple[Stored, ...]
    counts: tuple[tuple[str, str], ...]
    lengths: tuple[tuple[str, str], ...]
    tiles: tuple[tuple[str, int], ...]


def names_of(program: Program) -> set[str]:
    """Every name in a program: of a loop, those that only its body knows too."""
    found = {a.dim if isinstance(a, SizeArgument) else a.name for a in program.arguments}
    found |= {tile.symbol for tile in program.tiles}
    for op in all_ops(program.body):
        inner = (op.variable, *(c.inner for c in op.carried)) if isinstance(op, For) else ()
        found |= {value.name for value in (*made_by(op), *operands(op), *inner)}
    return found


def walks_of(program: Program) -> list[For]:
    """The loops of a program over blocks of a dim of its own that hand anything on."""
    loops = [op for op in program.body if isinstance(op, For)]
    return [loop for loop in loops if loop.carried and isinstance(loop.step, str)]


def walk_of(program: Program) -> For | None:
    """The one loop of a program, if it is such a walk."""
    loops = [op for op in program.body if isinstance(op, For)]
    walks = walks_of(program)
    return walks[0] if len(loops) == len(walks) == 1 else None


def row_walk_of(program: Program) -> For | None:
    """The one loop of a program, where it goes row by row and hands on tiles."""
    loops = [op for op in program.body if isinstance(op, For)]
    if len(loops) != 1 or loops[0].step != 1 or not any(c.inner.axes for c in loops[0].carried):
        return None
    return loops[0]


@dataclass
class Walk:
    """A program that walks blocks of ``dim``, while it is cut."""

    program: Program
    taken: set[str]  # names of buffers and dims of the plan
    dtype: DType
    counts: dict[str, str] = field(default_factory=dict)
    lengths: dict[str, str] = field(default_factory=dict)
    tiles: dict[str, int] = field(default_factory=dict)
    stored: list[Stored] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take note of every name that there is."""
        self.taken |= names_of(self.program) | {tile.dim for tile in self.program.tiles}
        self.dim = next(t.dim for t in self.program.tiles if t.symbol == self.loop.step)

    @property
    def loop(self) -> For:
        """The walk."""
        found = walk_of(self.program)
        assert found is not None
        return found

    def fresh(self, hint: str) -> str:
        """A name that nothing has."""
        name = free_name(hint, self.taken)
        self.taken.add(name)
        return name

    # ---------------------------------------------------------------------------- preparing

    def prepared(self) -> tuple[Program, Program] | None:
        """What does not depend on the walk, all blocks at once; then the walk with the rest. None
        where there is nothing worth it."""
        self._invert()
        ops, late = self.loop.body, self._late()
        walked = reached_by(ops, late) | {n for n, op in enumerate(ops) if isinstance(op, Store)}
        heavy = {n for n, op in enumerate(ops) if n not in walked and not is_cheap(op)}
        if not heavy:
            return None
        cut = cut_by_bytes(ops, heavy, walked, (), self._size_bytes)
        made = reaching(ops, set(cut.crossing))  # not what is heavy alone: the cut may take more
        between = self._between(cut.crossing, self._positions(made))
        earlier = self._at_once("prepare", [(n, ops[n]) for n in range(len(ops))], between)
        later = self._walking(self.program.name, ops, cut.later, between, loads=True)
        return earlier, later

    def _late(self) -> set[str]:
        """What is known in a turn of the walk alone, or in a program that holds a part."""
        names = {carried.inner.name for carried in self.loop.carried}
        names |= {axis.position.name for axis in self.program.grid if self._is_part(axis)}
        before = self._before()
        for place in reached_by(before, names):
            names |= {value.name for value in made_by(before[place])}
        return names

    def _is_part(self, axis: GridAxis) -> bool:
        return axis.tiled or axis.dim in self._segments

    @property
    def _segments(self) -> set[str]:
        """The dims that count stretches of blocks, of which a program walks one."""
        return {p.shared for p in self.program.common_blocks if p.dim == self.dim}

    def _before(self) -> tuple[Op, ...]:
        return self.program.body[: self.program.body.index(self.loop)]

    def _invert(self) -> None:
        late = self._late()
        for place in reached_by(self.loop.body, late):
            late |= {value.name for value in made_by(self.loop.body[place])}
        third = self._third()
        body = Inverses(third, self.dtype, self.fresh).rewrite(self.loop.body, late)
        if body != self.loop.body:
            tiles = tuple(t for t in self.program.tiles if t != third)
            self.program = replace(self._with_body(body), tiles=(*tiles, third))

    def _third(self) -> Tile:
        """A third dim of the walk's blocks, beside rows and columns."""
        name = f"{self.dim}_3"
        known = next((t for t in self.program.tiles if t.dim == name), None)
        return known or Tile(name, self.program.tile(self.dim).block, like=self.dim)

    def _with_body(self, body: tuple[Op, ...]) -> Program:
        walk = self.loop
        ops = tuple(replace(walk, body=body) if op is walk else op for op in self.program.body)
        return replace(self.program, body=ops)

    # ------------------------------------------------------------------------------ reading

    def read_apart(self) -> tuple[Program, Program] | None:
        """What the walk hands on, and apart, for all blocks at once, what only reads it."""
        ops = self.loop.body
        carry = reaching(ops, self.loop.yields)
        read = {n for n in range(len(ops)) if n not in carry and not isinstance(ops[n], Comment)}
        if not any(isinstance(ops[n], Store) for n in read):
            return None
        states = tuple(carried.inner for carried in self.loop.carried)
        held = reached_by(ops, {state.name for state in states})
        kept = {n for n in carry if not is_cheap(ops[n])}
        apart = {n for n in read if n in held or isinstance(ops[n], Store) or not is_cheap(ops[n])}
        cut = cut_by_bytes(ops, kept, apart, states, self._size_bytes)
        axes = tuple(axis for axis in self.program.grid if axis.dim not in self._segments)
        between = self._between(cut.crossing, axes)
        earlier = self._walking(
            self.program.name, ops, frozenset(carry | _comments(ops)), between, loads=False
        )
        loaded = [(n, op) for n, op in enumerate(ops) if n in cut.later]
        later = self._at_once("read", loaded, between, loads=True)
        return earlier, later

    # ----------------------------------------------------------------------- what is between

    def _size_bytes(self, value: Value) -> int:
        size = value.dtype.size_bytes
        for axis in value.axes:
            size *= self.program.tile(axis).block
        return size

    def _positions(self, places: Collection[int]) -> tuple[GridAxis, ...]:
        """The axes of the grid that what stands at these places of the walk depends on."""
        wanted = {v for n in places for v in free_values(self.loop.body[n])}
        every = (*self._before(), *self.loop.body)
        names = {v.name for n in reaching(every, wanted) for v in free_values(every[n])}
        names |= {value.name for value in wanted}
        return tuple(axis for axis in self.program.grid if axis.position.name in names)

    def _between(
        self, values: Sequence[Value], positions: tuple[GridAxis, ...]
    ) -> tuple[Stored, ...]:
        """Buffers for values of each block of the walk."""
        self.positions = positions
        chunks = f"{self.dim}_chunks"
        if values:
            self.counts[chunks] = self.dim
        self.chunk = Value(self.fresh(f"{self.dim.lower()}_chunk"), DType.INT32)
        places = [(axis.dim, axis.position) for axis in positions if not axis.tiled]
        self.ranges: dict[str, Op] = {}
        self.masks: dict[str, Value | None] = {}
        made = []
        for value in values:
            index = [*places, (chunks, self.chunk)]
            index += [self._place(axis) for axis in self._ordered(value)]
            bounds = [self.masks[a] for a in sorted(value.axes) if self.masks.get(a) is not None]
            mask = bounds[0] if bounds else None
            name = self.fresh(f"{self.dim.lower()}_chunk_{value.name}")
            made.append(Stored(value, name, tuple(index), mask))
        self.stored += made
        return tuple(made)

    def _ordered(self, value: Value) -> list[str]:
        """Rows before columns, entries last: neighbours in memory."""
        rows = [t.dim for t in self.program.tiles if self.dim in (t.dim, t.like)]
        return [
            *(a for a in sorted(rows) if a in value.axes),
            *sorted(a for a in value.axes if a not in rows),
        ]

    def _place(self, axis: str) -> tuple[str, Value]:
        """The dim of a buffer for an axis of a tile, and where the tile's positions are."""
        tile = self.program.tile(axis)
        if any(g.dim == axis and g.tiled for g in self.program.grid):
            return axis, self._part(axis)
        if axis not in self.ranges:
            out = Value(self.fresh(f"{axis.lower()}_entry"), DType.INT32, frozenset({axis}))
            self.ranges[axis] = Range(out, None)
        place = made_by(self.ranges[axis])[0]
        if self.dim in (axis, tile.like):
            self.lengths[f"{axis}_rows"] = self.dim
            return f"{axis}_rows", place
        if tile.size == tile.block and tile.like is None:
            return axis, place
        self.tiles[f"{axis}_tile"] = tile.block
        return f"{axis}_tile", place

    def _part(self, axis: str) -> Value:
        """Where a part of an axis stands that programs share out, and which of it exist."""
        start = next(g.position for g in self.program.grid if g.dim == axis)
        before = self._before()
        place = next(op.out for op in before if isinstance(op, Range) and op.start == start)
        whole = any(isinstance(p, WholeBlocks) and p.dim == axis for p in self.program.promises)
        exists = (
            op.out
            for op in before
            if isinstance(op, Elementwise) and op.fn == "lt" and op.args[0] == place
        )
        self.masks[axis] = None if whole else next(exists)
        return place

    # ------------------------------------------------------------------------------ programs

    def _block_number(self) -> Op:
        symbol = Value(self.program.tile(self.dim).symbol, DType.INT32)
        return Elementwise(self.chunk, "floordiv", (self.loop.variable, symbol))

    def _at_once(
        self,
        part: str,
        ops: Iterable[tuple[int, Op]],
        between: tuple[Stored, ...],
        loads: bool = False,
    ) -> Program:
        """A program that takes one block of the walk."""
        crossing = {stored.value.name for stored in between}
        body: list[Op] = [*self._before(), *self.ranges.values(), self._block_number()]
        if loads:
            body += [_load(stored) for stored in between]
            body += [op for _, op in ops if crossing.isdisjoint(v.name for v in made_by(op))]
        else:
            body += [op for _, op in ops if not isinstance(op, Store)]
            body += [_store(stored) for stored in between]
        grid = (*self.positions, GridAxis(self.dim, self.loop.variable, tiled=True))
        name = self.fresh(f"{self.program.name}_{part}")
        made = replace(self.program, name=name, grid=grid, body=tuple(body))
        return self._finished(made, between, loads)

    def _walking(
        self,
        name: str,
        ops: Sequence[Op],
        places: frozenset[int],
        between: tuple[Stored, ...],
        loads: bool,
    ) -> Program:
        """The walk with the ops at ``places`` alone."""
        by_name = {stored.value.name: stored for stored in between}
        body: list[Op] = [self._block_number()]
        for place, op in enumerate(ops):
            found = [by_name[v.name] for v in made_by(op) if v.name in by_name]
            if loads:
                body += [_load(stored) for stored in found]
            if place in places and not (loads and found):
                body.append(op)
            if not loads:
                body += [_store(stored) for stored in found]
        if not loads:
            states = {carried.inner.name for carried in self.loop.carried}
            body += [_store(s) for s in between if s.value.name in states]
        made = self._with_body(tuple(body))
        at = made.body.index(next(op for op in made.body if isinstance(op, For)))
        whole = (*made.body[:at], *self.ranges.values(), *made.body[at:])
        return self._finished(replace(made, name=name, body=whole), between, loads)

    def _finished(self, program: Program, between: tuple[Stored, ...], loads: bool) -> Program:
        """Without what is not needed; with buffers as arguments, and blocks as the others'."""
        buffers = tuple(
            BufferArgument(s.buffer, s.dims, s.value.dtype, written=not loads) for s in between
        )
        shared = {CommonBlocks(self.dim, dim) for dim in self.counts}
        program = replace(
            program,
            arguments=(*buffers, *program.arguments),
            body=with_comments(program.body),
            promises=tuple(sorted({*program.promises, *shared}, key=str)),
        )
        program = remove_dead_ops(program)
        program = replace(program, body=with_comments(program.body))
        return replace(program, arguments=_used(program))


def _load(stored: Stored) -> Op:
    return Load(stored.value, stored.buffer, stored.index, stored.mask)


def _store(stored: Stored) -> Op:
    return Store(stored.buffer, stored.index, stored.value, stored.mask)


def _comments(ops: Sequence[Op]) -> set[int]:
    return {place for place, op in enumerate(ops) if isinstance(op, Comment)}


def with_comments(body: tuple[Op, ...]) -> tuple[Op, ...]:
    """Without the comments that nothing follows."""
    kept: list[Op] = []
    for op in body:
        if isinstance(op, Comment) and kept and isinstance(kept[-1], Comment):
            kept.pop()
        kept.append(replace(op, body=with_comments(op.body)) if isinstance(op, For) else op)
    while kept and isinstance(kept[-1], Comment):
        kept.pop()
    return tuple(kept)


def _used(program: Program) -> tuple[Argument, ...]:
    """The arguments that a program reads or writes."""
    names = {value.name for op in all_ops(program.body) for value in free_values(op)}
    names |= {op.buffer for op in all_ops(program.body) if isinstance(op, Load | Store | Search)}
    names |= {axis.dim for axis in program.grid}

    def is_used(argument: Argument) -> bool:
        match argument:
            case SizeArgument(dim):
                return dim in names
            case BufferArgument(name) | HostArgument(name) | ParamArgument(name):
                return name in names

    return tuple(argument for argument in program.arguments if is_used(argument))
