"""Build a tile program op by op, each op in the outermost scope that has what it reads.

A scope is the program's top or a loop body. Hoisting out of loops and sharing of equal ops follow
from where an op lands and from a table of what the scope has already made; no schedule does
either by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ...ir.expression import Kind
from ...ir.sign import keeps_nonnegative
from ...ir.tile import (
    BufferArgument,
    Carried,
    Cast,
    Combine,
    Comment,
    Constant,
    Dot,
    DType,
    Elementwise,
    For,
    HostArgument,
    Load,
    Op,
    ParamArgument,
    Program,
    Range,
    Reduce,
    Rename,
    Scan,
    Search,
    SizeArgument,
    Solve,
    Store,
    Substitute,
    Value,
)
from ..passes.remove_dead_ops import remove_dead_ops
from .draft import Draft
from .renames import Before
from .scope import Loop, Scope
from .simplify import simplify, without_negatives

KIND_DTYPE = {Kind.BOOL: DType.BOOL, Kind.INT: DType.INT32, Kind.REAL: DType.FLOAT32}


class Builder(Draft):
    """The ops of a tile program in the making; each lands where what it reads is known."""

    def _emit(self, key: object, level: int, make: Callable[[], tuple[Op, Value]]) -> Value:
        for scope in self.scopes[: level + 1]:
            if key in scope.made:
                return scope.made[key]
        op, out = make()
        self.scopes[level].ops.append(op)
        self.scopes[level].made[key] = out
        return out

    def constant(
        self, value: float | int | bool, dtype: DType, axes: frozenset[str] = frozenset()
    ) -> Value:
        """The same number everywhere."""

        def make() -> tuple[Op, Value]:
            out = self.value("constant", dtype, axes, 0)
            self._constants[out.name] = value
            return Constant(out, value), out

        return self._emit(("constant", repr(value), dtype, axes), 0, make)

    def range(self, dim: str, start: Value | None, hint: str) -> Value:
        """The positions of a tile of ``dim`` that begins at ``start``."""
        level = self.level(start)

        def make() -> tuple[Op, Value]:
            out = self.value(hint, DType.INT32, frozenset({dim}), level)
            if start is None or self.is_nonnegative(start):
                self._nonnegative.add(out.name)
            if start is not None:
                self._begins[out.name] = start
            return Range(out, start), out

        return self._emit(("range", dim, start), level, make)

    def elementwise(self, fn: str, *args: Value, dtype: DType, hint: str = "") -> Value:
        """``fn`` of values that meet by axis name."""
        if (before := self._renames.before(args)) is not None:
            made = self.elementwise(fn, *before.present, dtype=dtype, hint=hint)
            return self._again(before, made)
        axes = frozenset[str]().union(*(a.axes for a in args))
        fn, args = without_negatives(self, fn, args)
        if dtype is DType.INT32 and not axes:
            simple = simplify(self, fn, args)
            if simple is not None:
                return simple
        level, numbers = self.level(*args), [self.constant_of(a) for a in args]

        def make() -> tuple[Op, Value]:
            name, number = hint or self.naming.result(fn, args, numbers), numbers[-1]
            out = self.value(name, dtype, axes, level)
            if not hint:
                self.naming.derived.add(out.name)
            signs = [self.is_nonnegative(a) for a in args]
            if dtype in (DType.INT32, DType.INT64) and keeps_nonnegative(
                fn, args, signs, number, {tile.symbol for tile in self.tiles.values()}
            ):
                self._nonnegative.add(out.name)
            if fn in ("add", "sub") and isinstance(number, int) and not axes:
                self.shifts[out.name] = (args[0], number if fn == "add" else -number)
            if fn == "neg" and args[0].dtype is dtype:
                self.negated[out.name] = args[0]
            return Elementwise(out, fn, args), out

        return self._emit((fn, args, dtype), level, make)

    def cast(self, x: Value, dtype: DType, hint: str = "") -> Value:
        """``x`` as ``dtype``; x itself if it is one already."""
        if x.dtype == dtype:
            return x
        constant = self.constant_of(x)
        if constant is not None:
            number = float(constant) if dtype.is_float else int(constant)
            return self.constant(bool(number) if dtype is DType.BOOL else number, dtype, x.axes)
        if (before := self._renames.before([x])) is not None:
            return self._again(before, self.cast(before.first, dtype, hint))
        level = self.level(x)

        def make() -> tuple[Op, Value]:
            narrow = dtype.is_narrow and not x.dtype.is_narrow
            name = self.naming.narrowed(x) if narrow else x.name
            out = self.value(hint or name, dtype, x.axes, level)
            if self.is_nonnegative(x) and not dtype.is_float:
                self._nonnegative.add(out.name)
            return Cast(out, x), out

        return self._emit(("cast", x, dtype), level, make)

    def load(
        self,
        buffer: str,
        index: Sequence[tuple[str, Value]],
        mask: Value | None = None,
        fill: float | int | bool = 0,
        hint: str = "",
    ) -> Value:
        """Read a buffer at one index value per dim."""
        argument = self._arguments[buffer]
        assert isinstance(argument, BufferArgument)
        places = tuple(index)
        if (before := self._renames.before([*(v for _, v in places), mask])) is not None:
            plain = list(zip((d for d, _ in places), before.present, strict=False))
            return self._again(before, self.load(buffer, plain, before.values[-1], fill, hint))
        level = self.level(mask, *(v for _, v in places))
        axes = frozenset[str]().union(*(v.axes for _, v in places))
        if mask is not None:
            axes |= mask.axes

        def make() -> tuple[Op, Value]:
            out = self.value(hint or f"{buffer}_tile", argument.dtype, axes, level)
            if argument.nonnegative:
                self._nonnegative.add(out.name)
            return Load(out, buffer, places, mask, fill), out

        return self._emit(("load", buffer, places, mask, fill), level, make)

    def store(
        self,
        buffer: str,
        index: Sequence[tuple[str, Value]],
        value: Value,
        mask: Value | None,
        add: bool = False,
    ) -> None:
        """Write to a buffer in the innermost scope, or ``add`` to what it holds."""
        self.scopes[-1].ops.append(Store(buffer, tuple(index), value, mask, add))

    def dot(
        self,
        a: Value,
        b: Value,
        over: str,
        acc: Value | None = None,
        hint: str = "",
        masked: bool = False,
        exact: bool = False,
    ) -> Value:
        """Contract one axis, in float32; ``masked``, ``exact``: see ``Dot``."""
        level, axes = self.level(a, b, acc), (a.axes | b.axes) - {over}

        def make() -> tuple[Op, Value]:
            name = hint or self.naming.contracted(a, b)
            out = self.value(name, DType.FLOAT32, axes, level)
            return Dot(out, a, b, over, acc, masked, exact), out

        return self._emit(("dot", a, b, over, acc, masked, exact), level, make)

    def reduce(self, op: str, x: Value, over: str, hint: str = "") -> Value:
        """Reduce one axis of a tile."""
        if (before := self._renames.before([x])) is not None:
            return self.reduce(op, before.first, before.axis, hint)
        level, named = self.level(x), hint or f"{op}_{over.lower()}"

        def make() -> tuple[Op, Value]:
            out = self.value(named, x.dtype, x.axes - {over}, level)
            return Reduce(out, op, x, over), out

        return self._emit(("reduce", op, x, over), level, make)

    def scan(
        self, x: Value, over: str, reverse: bool = False, hint: str = "", op: str = "sum"
    ) -> Value:
        """The running sum (product, maximum) along one axis of a tile."""
        if (before := self._renames.before([x])) is not None:
            return self._again(before, self.scan(before.first, before.axis, reverse, hint, op))

        def make() -> tuple[Op, Value]:
            out = self.value(hint or "running", x.dtype, x.axes, self.level(x))
            return Scan(out, x, over, reverse, op), out

        return self._emit(("scan", x, over, reverse, op), self.level(x), make)

    def combine(
        self,
        xs: Sequence[Value],
        over: str,
        function: Callable[[tuple[Value, ...], tuple[Value, ...]], Sequence[Value]],
        reverse: bool = False,
        hints: Sequence[str] = (),
    ) -> tuple[Value, ...]:
        """Running combinations along one axis; ``function`` puts two stretches together.

        It is called once, with the left and the right values, while a scope of its own is open.
        """
        level, names = self.level(*xs), hints or ["running"] * len(xs)
        inside = len(self.scopes)
        self.scopes.append(Scope())
        left, right = (
            tuple(
                self.value(f"{n}_{side}", x.dtype, x.axes, inside)
                for n, x in zip(names, xs, strict=True)
            )
            for side in ("left", "right")
        )
        results = tuple(function(left, right))
        body = tuple(self.scopes.pop().ops)
        outs = tuple(self.value(n, x.dtype, x.axes, level) for n, x in zip(names, xs, strict=True))
        made = Combine(outs, tuple(xs), over, left, right, body, results, reverse)
        self.scopes[level].ops.append(made)
        return outs

    def rename(self, x: Value, axis: str, to: str, hint: str = "") -> Value:
        """``x`` with its axis ``axis`` called ``to``."""
        level = self.level(x)

        def make() -> tuple[Op, Value]:
            out = self.value(hint or x.name, x.dtype, x.axes - {axis} | {to}, level)
            if self.is_nonnegative(x):
                self._nonnegative.add(out.name)
            if x.name in self._begins:
                self._begins[out.name] = self._begins[x.name]
            self._renames.note(out, x, axis, to)
            return Rename(out, x, axis, to), out

        return self._emit(("rename", x, axis, to), level, make)

    def _again(self, before: Before, value: Value) -> Value:
        return self.rename(value, before.axis, before.to)

    def substitute(self, a: Value, b: Value, rows: str, columns: str, hint: str = "") -> Value:
        """Solve (1 - strictly lower a) x = b for x, down the axis ``rows``."""
        level = self.level(a, b)

        def make() -> tuple[Op, Value]:
            out = self.value(hint or b.name, DType.FLOAT32, b.axes | {rows}, level)
            return Substitute(out, a, b, rows, columns), out

        return self._emit(("substitute", a, b, rows, columns), level, make)

    def solve(self, matrix: Value, vector: Value, left: str, right: str, hint: str = "") -> Value:
        """The x along ``right`` for which sum(matrix * x, right) == vector."""
        level = self.level(matrix, vector)

        def make() -> tuple[Op, Value]:
            axes = vector.axes - {left} | {right}
            out = self.value(hint or "solution", DType.FLOAT32, axes, level)
            return Solve(out, matrix, vector, left, right), out

        return self._emit(("solve", matrix, vector, left, right), level, make)

    def search(
        self,
        buffer: str,
        index: Sequence[tuple[str, Value]],
        dim: str,
        size: Value,
        value: Value,
        side: str,
    ) -> Value:
        """Count the entries of a sorted table that are below ``value``."""
        places = tuple(index)
        level = self.level(size, value, *(v for _, v in places))

        def make() -> tuple[Op, Value]:
            out = self.value(f"{buffer}_found", DType.INT32, frozenset(), level)
            self._nonnegative.add(out.name)
            return Search(out, buffer, places, dim, size, value, side), out

        return self._emit(("search", buffer, places, dim, size, value, side), level, make)

    def comment(self, text: str) -> None:
        """A line for the reader, in the innermost scope."""
        self.scopes[-1].ops.append(Comment(text))

    # ------------------------------------------------------------------------------ loops

    @contextmanager
    def at(self, dim: str, place: int) -> Iterator[None]:
        """``dim`` at one place, a number: a turn of a loop that is written out, without loops."""
        around = self.scopes[-1]
        self.scopes.append(Scope(around.ops, around.made, inline=True))
        self.place(dim, self.constant(place, DType.INT32))
        yield
        self.scopes.pop()

    @contextmanager
    def loop(
        self,
        variable: str,
        start: Value,
        stop: Value,
        step: str | int,
        carried: Sequence[tuple[str, Value]],
    ) -> Iterator[Loop]:
        """Open a loop; set ``yields`` on what this gives before the block ends."""
        level = len(self.scopes)
        self.scopes.append(Scope())
        inner = tuple(self.value(hint, v.dtype, v.axes, level) for hint, v in carried)
        loop = Loop(self.value(variable, DType.INT32, frozenset(), level), inner)
        if self.is_nonnegative(start):
            self._nonnegative.add(loop.variable.name)
        yield loop
        scope = self.scopes.pop()
        assert len(loop.yields) == len(inner), "a loop hands over what it carries"
        outs = tuple(self.value(hint, v.dtype, v.axes, level - 1) for hint, v in carried)
        handed = tuple(Carried(i, v, o) for i, (_, v), o in zip(inner, carried, outs, strict=True))
        self.scopes[-1].ops.append(
            For(loop.variable, start, stop, step, handed, tuple(scope.ops), tuple(loop.yields))
        )
        loop.results = outs

    def finish(self, launch: tuple[tuple[str, int], ...] = (), about: str = "") -> Program:
        """The program."""
        assert len(self.scopes) == 1, "a loop is still open"
        order = (BufferArgument, SizeArgument, HostArgument, ParamArgument)
        arguments = sorted(self._arguments.values(), key=lambda a: order.index(type(a)))
        program = Program(
            self.name,
            tuple(arguments),
            tuple(self.grid),
            tuple(self.tiles.values()),
            tuple(self.scopes[0].ops),
            launch,
            about,
            tuple(sorted(self.promises, key=str)),
        )
        return remove_dead_ops(program)
