"""Numbers of rows that a walk over chunks reads: loaded one turn before they are needed.

    for t: x = load t; s = f(x, s)
    --> x = load first; for t: y = load t + step; s = f(x, s); x = y

What factors of products are made of is copied ahead by Triton, asynchronously, but for numbers of
16 bits that are no neighbours, and what a product is added to is not: each turn of the walk waits
for the memory. It costs a register or two to have a row's number there, which a program that holds
a state whole does not have. Decays, gates and learning rates are such numbers; so are the values of
a delta rule, as many columns of them as a program has of the state, where a product is all that is
added to them; and all that a scan reads, which has no products.

    for t: f(x) is loaded, and each place of a state reads it
    --> the turn before hands on f(x)

What is made of a row's channels alone is made where they were loaded, once for each, before lanes
pass them on to those that have the places of a state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from ...ir.names import free_name
from ...ir.plan import Kernel, Plan
from ...ir.targets import THREADS_PER_WARP, Target, threads_of
from ...ir.tile import (
    Carried,
    Cast,
    Constant,
    Dot,
    DType,
    Elementwise,
    For,
    Load,
    Op,
    Program,
    Range,
    Rename,
    Value,
    all_ops,
    made_by,
    operands,
)
from .remove_dead_ops import remove_dead_ops
from .walk_parts import names_of, walks_of

_PLACES = Constant | Range | Elementwise | Cast | Rename  # what may be computed twice
_WALKS = ("chunk", "scan")  # schedules
_PIECE = 4  # bytes that are copied at a time at least
_FEW = 1  # axes of what stays in registers for a turn
_REGISTERS = 8  # of a thread, that a tile with more axes takes of them
_BYTES = 4  # of a register
_NUMBERS = 32  # of one value, that a thread holds beside rows on their way


def load_ahead(plan: Plan) -> Plan:
    """Every walk over chunks, and every scan, on a GPU with its next rows on their way."""
    if not isinstance(plan.target, Target):
        return plan
    kernels = tuple(_with_loads_ahead(kernel) for kernel in plan.kernels)
    return plan if kernels == plan.kernels else replace(plan, kernels=kernels)


def _with_loads_ahead(kernel: Kernel) -> Kernel:
    if kernel.schedule not in _WALKS or not any(axis.tiled for axis in kernel.program.grid):
        return kernel
    program = kernel.program
    for walk in walks_of(program):
        if _is_rest(program, walk):
            continue
        made = Ahead(program, walk).rewritten()
        program = program if made is None else made
    return replace(kernel, program=program)


@dataclass
class Ahead:
    """The rewrite of one walk."""

    program: Program
    walk: For
    taken: set[str] = field(default_factory=set)
    before: list[Op] = field(default_factory=list)
    body: list[Op] = field(default_factory=list)
    carried: list[Carried] = field(default_factory=list)
    yields: list[Value] = field(default_factory=list)
    started: set[str] = field(default_factory=set)
    behind: list[Op] = field(default_factory=list)  # at the end of a turn

    def rewritten(self) -> Program | None:
        """The program; None where every load has to stay where it is."""
        self.taken |= names_of(self.program)
        makers = {value.name: op for op in self.walk.body for value in made_by(op)}
        copied = _copied(self.walk.body)
        waited = (op for op in self.walk.body if isinstance(op, Load) and op.out.name not in copied)
        self.started = _started(self.walk.body)
        moved = {op: chain for op in waited if (chain := self._places(op, makers))}
        if not moved:
            return None
        following = self._following()
        made = {op: self._made_of(op, makers) for op in moved}
        gone = {op.out.name for chain in made.values() for op in chain}
        for op in self.walk.body:
            if isinstance(op, Load) and op in moved:
                self._move(op, moved[op], following, made[op])
            elif gone.isdisjoint(value.name for value in made_by(op)):
                self.body.append(op)
        self.body += self.behind
        return self._assembled()

    def _places(self, op: Load, makers: Mapping[str, Op]) -> tuple[Op, ...]:
        """What a load's places are computed from in the walk, in order; nothing where the load has
        to stay."""
        if op.again or not self._is_held(op.out):
            return ()
        own = {c.inner.name for c in self.walk.carried}
        wanted, found = list(operands(op)), set[str]()
        while wanted:
            value = wanted.pop()
            maker = makers.get(value.name)
            if value.name in own or not (maker is None or isinstance(maker, _PLACES)):
                return ()
            if maker is not None and value.name not in found:
                found.add(value.name)
                wanted += operands(maker)
        chain = tuple(o for o in self.walk.body if any(v.name in found for v in made_by(o)))
        walked = (self.walk.variable in operands(o) for o in (*chain, op))
        return chain if any(walked) else ()

    def _is_held(self, tile: Value) -> bool:
        """Whether registers hold a tile for a turn."""
        if len(tile.axes) <= _FEW:
            return True
        elements, threads = self._elements(tile), threads_of(self.program.launch)
        room = _REGISTERS * _BYTES * threads
        waited = tile.name in self.started or self._is_small
        return waited and elements * tile.dtype.size_bytes <= room

    @property
    def _is_small(self) -> bool:
        """Whether the walk has no products, whose factors Triton copies ahead, nor values that fill
        a thread's registers."""
        values = [value for op in self.walk.body for value in made_by(op)]
        most = max(self._elements(value) for value in values)
        products = any(isinstance(op, Dot) for op in self.walk.body)
        return not products and most <= _NUMBERS * threads_of(self.program.launch)

    def _elements(self, tile: Value) -> int:
        return prod(self.program.tile(axis).block for axis in tile.axes)

    def _value(self, hint: str, value: Value) -> Value:
        name = free_name(hint, self.taken)
        self.taken.add(name)
        return replace(value, name=name)

    def _following(self) -> Value:
        """Where the walk is a turn later."""
        variable, step = self.walk.variable, self.walk.step
        assert isinstance(step, str)
        block = Value(step, DType.INT32)
        out = self._value(f"{variable.name}_next", variable)
        self.body.append(Elementwise(out, "add", (variable, block)))
        return out

    def _made_of(self, load: Load, makers: Mapping[str, Op]) -> tuple[Cast | Elementwise, ...]:
        """What one warp makes, one of the other, of a loaded tile and of what stands before the
        walk: as long as one op alone reads it, and where there are values with more axes."""
        values = [value for op in self.walk.body for value in made_by(op)]
        tile, found = load.out, list[Cast | Elementwise]()
        alone = threads_of(self.program.launch) == THREADS_PER_WARP
        if not alone or not any(tile.axes < value.axes for value in values):
            return ()
        inside = {*makers, self.walk.variable.name, *(c.inner.name for c in self.walk.carried)}
        while True:
            readers = [op for op in self.walk.body if _reads(op, tile)]
            if len(readers) != 1 or tile in self.walk.yields:
                return tuple(found)
            (reader,) = readers
            if not isinstance(reader, Cast | Elementwise) or reader.out.axes != load.out.axes:
                return tuple(found)
            if any(v != tile and v.name in inside for v in operands(reader)):
                return tuple(found)
            found.append(reader)
            tile = reader.out

    def _move(
        self,
        load: Load,
        chain: tuple[Op, ...],
        following: Value,
        made: tuple[Cast | Elementwise, ...],
    ) -> None:
        first = self._loaded(load, chain, self.walk.start, "first", self.before)
        later = self._loaded(load, chain, following, "next", self.body)
        carried = made[-1].out if made else load.out
        first = self._finished(load.out, first, made, "first", self.before)
        later = self._finished(load.out, later, made, "next", self.behind)
        out = self._value(f"{carried.name}_left", carried)
        self.carried.append(Carried(carried, first, out))
        self.yields.append(later)

    def _finished(
        self,
        tile: Value,
        loaded: Value,
        made: tuple[Cast | Elementwise, ...],
        hint: str,
        ops: list[Op],
    ) -> Value:
        """What is made of a loaded tile, there."""
        known = {tile.name: loaded}
        for op in made:
            copy = _with_operands(op, lambda value: known.get(value.name, value))
            known[op.out.name] = self._value(f"{op.out.name}_{hint}", op.out)
            ops.append(replace(copy, out=known[op.out.name]))
        return known[made[-1].out.name] if made else loaded

    def _loaded(
        self, load: Load, chain: tuple[Op, ...], place: Value, hint: str, ops: list[Op]
    ) -> Value:
        """The load where the walk is at ``place``, as far as it gets there."""
        known = {self.walk.variable.name: place}

        def here(value: Value) -> Value:
            return known.get(value.name, value)

        for op in chain:
            copy = _with_operands(op, here)
            (made,) = made_by(op)
            known[made.name] = self._value(f"{made.name}_{hint}", made)
            ops.append(replace(copy, out=known[made.name]))
        inside = self._value("inside", Value("", DType.BOOL))
        stop = self.walk.stop  # a start that is a number goes behind: T > 0
        pair = ("gt", (stop, place)) if place == self.walk.start else ("lt", (place, stop))
        ops.append(Elementwise(inside, *pair))
        mask = inside
        if load.mask is not None:
            mask = self._value("inside", replace(load.mask, dtype=DType.BOOL))
            ops.append(Elementwise(mask, "and", (here(load.mask), inside)))
        out = self._value(f"{load.out.name}_{hint}", load.out)
        index = tuple((dim, here(value)) for dim, value in load.index)
        ops.append(replace(load, out=out, index=index, mask=mask))
        return out

    def _assembled(self) -> Program:
        walk = replace(
            self.walk,
            carried=(*self.walk.carried, *self.carried),
            body=tuple(self.body),
            yields=(*self.walk.yields, *self.yields),
        )
        body: list[Op] = []
        for op in self.program.body:
            body += [*self.before, walk] if op is self.walk else [op]
        return remove_dead_ops(replace(self.program, body=tuple(body)))


def _reads(op: Op, value: Value) -> bool:
    """Whether an op, or one inside of it, reads a value."""
    inner = [*all_ops((op,))]
    handed = (v for one in inner if isinstance(one, For) for v in one.yields)
    return value in handed or any(value in operands(one) for one in inner)


def _is_rest(program: Program, walk: For) -> bool:
    """Whether whole blocks have a walk of their own, and this one is the turn that is left."""
    makers = {value.name: op for op in program.body for value in made_by(op)}
    ops = [makers.get(walk.start.name)]
    match ops[0]:
        case Elementwise(_, "add", args):
            ops = [makers.get(value.name) for value in args]
    for op in ops:
        match op:
            case Elementwise(_, "mul", (count, block)) if block.name == walk.step:
                whole = makers.get(count.name)
                return isinstance(whole, Elementwise) and whole.fn == "floordiv"
    return False


def _started(ops: tuple[Op, ...]) -> set[str]:
    """The tiles that a product alone is added to: Triton takes them for what its sum starts from,
    and copies none of that ahead."""
    products = {op.out.name for op in ops if isinstance(op, Dot) and op.acc is None}
    found = {op.acc.name for op in ops if isinstance(op, Dot) and op.acc is not None}
    for op in reversed(ops):
        match op:
            case Elementwise(_, "add", (a, b)) if a.axes == b.axes and b.name in products:
                found.add(a.name)
            case Elementwise(_, "add", (a, b)) if a.axes == b.axes and a.name in products:
                found.add(b.name)
            case Cast(out, x) if out.name in found:
                found.add(x.name)
    return found


def _copied(ops: tuple[Op, ...]) -> set[str]:
    """The loads that Triton copies ahead: those that factors of products are made of, in pieces of
    four bytes or more."""
    wanted = set[str]()
    for op in reversed(ops):
        match op:
            case Dot(_, a, b):
                wanted |= {a.name, b.name}
            case _ if any(value.name in wanted for value in made_by(op)):
                wanted |= {value.name for value in operands(op)}
            case _:
                pass
    loads = (op.out for op in ops if isinstance(op, Load))
    return {x.name for x in loads if x.name in wanted and x.axes and x.dtype.size_bytes >= _PIECE}


def _with_operands(op: Op, here: Callable[[Value], Value]) -> _PLACES:
    """An op that reads other values."""
    match op:
        case Constant():
            return op
        case Range(_, start):
            return replace(op, start=None if start is None else here(start))
        case Elementwise(_, _, args):
            return replace(op, args=tuple(here(arg) for arg in args))
        case Cast(_, x) | Rename(_, x):
            return replace(op, x=here(x))
    raise AssertionError(f"{op} is no place")
