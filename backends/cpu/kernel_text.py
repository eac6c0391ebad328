"""One tile program as one C++ function."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...ir.tile import (
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
    Rename,
    Scan,
    Search,
    SizeArgument,
    Solve,
    Store,
    Substitute,
    Value,
    made_by,
    operands,
)
from .functions import (
    ARRAY_TYPE,
    MEMORY_TYPE,
    SCALAR_TYPE,
    Text,
    write_call,
    write_cast,
    write_number,
)
from .fusion import Fusion, Nest, Step
from .layout import choose_layout
from .local_arrays import LocalArrays
from .memory import AccessReader
from .names import taken
from .nest import NestText
from .products import declare_form, late_forms, operand_requests, write_dot
from .scans import write_combine, write_scan
from .systems import write_rename, write_solve, write_substitute
from .target import CpuTarget
from .tile_memory import write_load, write_search, write_store


@dataclass(frozen=True, slots=True)
class Array:
    """A local array: its name in the text, and the axes it has, row-major."""

    name: str
    axes: tuple[str, ...]


class KernelText:
    """The writer of one kernel; ``lines`` is the result. ``sizes`` are known at compile time."""

    def __init__(
        self,
        program: Program,
        target: CpuTarget,
        params: Mapping[str, float],
        sizes: Mapping[str, int] = {},
    ) -> None:
        self.program = program
        self.target = target
        self.sizes = sizes
        self.blocks = {t.dim: t.block for t in program.tiles}
        launch = dict(program.launch)
        self.vectors_at_once = launch.get("vectors_at_once", 4)
        self.dot_rows = launch.get("dot_rows", 6)
        self.dot_vectors = launch.get("dot_vectors", 4)
        self.layout = choose_layout(program, target.lanes)
        self.fusion = Fusion(program, self.layout)
        self.reader = AccessReader(self.fusion.makers, lambda v: self.scalar(v).code)
        self.locals = LocalArrays(self.fresh)
        self.arrays: dict[str, Array] = {}
        self.forms: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
        self._scalars: dict[str, Text] = {}
        self._taken: set[str] = {
            *taken(target),
            *(f"{word}_{tile.dim}" for tile in program.tiles for word in ("at", "from")),
        }
        self._lines: list[list[str]] = [[]]
        self._owner: dict[str, str] = {}  # of an array: the value that it holds
        self._written: set[int] = set()  # ops, by identity
        self._yields: list[Mapping[str, Value]] = []  # of the loops around, by what is handed over
        self.plain, self.operand_forms = operand_requests(self)
        self._loops_around = 0
        self.row: Value | None = None  # the variable of a loop over rows
        self.direct: dict[tuple[str, str], tuple[str, str, str]] = {}
        self.direct_right: dict[tuple[str, str], tuple[str, str]] = {}
        self._write(params)
        self.lines = self._lines[0]

    # ------------------------------------------------------------------------------ naming

    def fresh(self, hint: str) -> str:
        """A name that is not taken, as near to ``hint`` as can be."""
        name, count = hint, 1
        while name in self._taken:
            count += 1
            name = f"{hint}_{count}"
        self._taken.add(name)
        return name

    def add(self, *lines: str) -> None:
        """Add lines to the body at hand."""
        self._lines[-1].extend(lines)

    def scalar(self, value: Value) -> Text:
        """The text of a value without axes."""
        if value.name not in self._scalars:
            maker = self.fusion.makers.get(value.name)
            assert isinstance(maker, Constant), value
            return Text(write_number(maker.value, value.dtype), value.dtype)
        return self._scalars[value.name]

    def scalar_name(self, value: Value) -> str:
        """The variable of a value without axes that is assigned later."""
        return self._scalars[value.name].code

    def declare_scalar(self, value: Value, code: str) -> None:
        """Give a value without axes a variable of its own."""
        name = self.fresh(value.name)
        self.add(f"const {SCALAR_TYPE[value.dtype]} {name} = {code};")
        self._scalars[value.name] = Text(name, value.dtype)

    def array(self, value: Value) -> Array:
        """The array of a value with axes."""
        return self.arrays[value.name]

    def place(self, axes: tuple[str, ...]) -> str:
        """The place in an array at the positions ``at_<axis>``."""
        terms, stride = [], 1
        for axis in reversed(axes):
            terms.append(f"at_{axis}" if stride == 1 else f"at_{axis} * {stride}")
            stride *= self.blocks[axis]
        return " + ".join(reversed(terms)) or "0"

    def in_vectors(self, axes: tuple[str, ...]) -> bool:
        """Whether the last axis of a tile holds whole vectors."""
        return self.blocks[axes[-1]] % self.target.lanes == 0

    def size(self, axes: tuple[str, ...]) -> int:
        """The number of elements of a tile."""
        total = 1
        for axis in axes:
            total *= self.blocks[axis]
        return total

    def declare(self, value: Value) -> Array:
        """The array of a value, declared where there is none yet."""
        if value.name not in self.arrays:
            axes = self.layout.of(value)
            name = self.fresh(value.name)
            kind = ARRAY_TYPE[value.dtype]
            self.local(kind, name, self.size(axes))
            self.bind(value, name, axes)
        return self.arrays[value.name]

    def local(self, kind: str, name: str, count: int) -> None:
        """Declare an array."""
        self.add(*self.locals.declare(kind, name, count))

    def bind(self, value: Value, name: str, axes: tuple[str, ...]) -> None:
        """Let a value be an array that is there, and whose own it then is."""
        self.arrays[value.name] = Array(name, axes)
        self._owner[name] = value.name

    def take(self, value: Value, source: Value) -> None:
        """Let a value overwrite the array of another, which nothing needs any more."""
        array = self.arrays[source.name]
        self.bind(value, array.name, array.axes)

    def is_free(self, value: Value, *doing: Op) -> bool:
        """Whether a value has an array that may be overwritten while some ops are done."""
        array = self.arrays.get(value.name)
        if array is None or self._owner.get(array.name) != value.name:
            return False
        done = self._written | {id(op) for op in doing}
        readers = self.fusion.chain_readers(value.name)
        return self.is_current(value) and all(id(r) in done for r in readers)

    def renamed(self, op: Rename) -> Array:
        """The array of a value under the name that one of its axes gets."""
        array = self.arrays[op.x.name]
        return Array(array.name, tuple(op.to if a == op.axis else a for a in array.axes))

    def root(self, value: Value, over: str, other: str) -> tuple[Value, str, str]:
        """The value that this one is by another name, and what two axes are called there."""
        while isinstance(maker := self.fusion.makers.get(value.name), Rename):
            over, other = (maker.axis if a == maker.to else a for a in (over, other))
            value = maker.x
        return value, over, other

    def needs_plain(self, value: Value) -> bool:
        """Whether something reads the value's array of numbers."""
        if value.name in self.plain:
            return True
        others = any(self._reads_numbers(r, value) for r in self.fusion.readers[value.name])
        if value.name in self.fusion.nest_of:
            return value.name in self.fusion.stored and others
        return others

    def _reads_numbers(self, reader: Op, value: Value) -> bool:
        if isinstance(reader, Rename):
            return self.needs_plain(reader.out)
        return not isinstance(reader, Dot) or reader.acc == value

    # --------------------------------------------------------------------------- the whole

    def _write(self, params: Mapping[str, float]) -> None:
        program = self.program
        self.add(f"static void {program.name}(const int64_t* args, const int threads) {{")
        self._lines.append([])
        self._arguments(params)
        self._grid()
        body = self._lines.pop()
        self._lines[-1].extend([f"  {line}" for line in body] + ["}"])

    def _arguments(self, params: Mapping[str, float]) -> None:
        place = 0
        for buffer in self.program.buffers.values():
            kind = MEMORY_TYPE[buffer.dtype] + ("" if buffer.written else " const")
            self._taken.add(buffer.name)
            self.add(f"{kind}* const {buffer.name} = ({kind}*)args[{place}];")
            place += 1
            for dim in buffer.dims:
                self.add(f"const int64_t {buffer.name}_stride_{dim} = args[{place}];")
                self._taken.add(f"{buffer.name}_stride_{dim}")
                place += 1
        for argument in self.program.arguments:
            match argument:
                case SizeArgument(dim):
                    value, code = Value(dim, DType.INT32), f"int32_t(args[{place}])"
                case HostArgument(name, dtype) | ParamArgument(name, dtype, True):
                    value = Value(name, dtype)
                    code = f"{SCALAR_TYPE[dtype]}(args[{place}])"
                    if dtype.is_float:
                        code = f"mx::number(args[{place}])"
                case ParamArgument(name, dtype):
                    value = Value(name, dtype)
                    self.declare_scalar(value, write_number(params[name], dtype))
                    continue
                case _:
                    continue
            place += 1
            self.declare_scalar(value, code)
        for tile in self.program.blocks:
            self.declare_scalar(Value(tile.symbol, DType.INT32), str(tile.block))
        self.argument_count = place

    def _grid(self) -> None:
        axes = sorted(self.program.grid, key=lambda g: not g.tiled)
        counts = []
        for axis in axes:
            size = self.length(axis.dim)
            if axis.tiled:
                block = self.blocks[axis.dim]
                size = f"(int64_t({size}) + {block - 1}) / {block}"
            name = self.fresh(f"{axis.dim}_count")
            self.add(f"const int64_t {name} = {size};")
            counts.append(name)
        self.add(f"const int64_t programs = {' * '.join(counts) or '1'};")
        self.add(
            "const int team = int(programs < threads ? programs > 1 ? programs : 1 : threads);"
        )
        self.add("#pragma omp parallel for schedule(dynamic, 1) num_threads(team)")
        self.add("for (int64_t program = 0; program < programs; ++program) {")
        self._lines.append([])
        if axes:
            self.add("int64_t rest = program;")
        for axis, count in zip(axes, counts, strict=True):
            code = f"rest % {count}"
            if axis.descending:
                code = f"{count} - 1 - {code}"
            if axis.tiled:
                code = f"({code}) * {self.blocks[axis.dim]}"
            self.declare_scalar(axis.position, f"int32_t({code})")
            self.add(f"rest /= {count};")
        self._body(self.program.body)
        body = self._lines.pop()
        self.add(*[f"  {line}" for line in body], "}")

    def length(self, dim: str) -> str:
        """How many positions of a dim there are."""
        sizes = {t.dim: t.size for t in self.program.tiles if t.size is not None} | dict(self.sizes)
        if dim in sizes:
            return str(sizes[dim])
        return self._scalars[dim].code

    # -------------------------------------------------------------------------------- steps

    def _body(self, body: tuple[Op, ...]) -> None:
        for step in self.fusion.steps[id(body)]:
            _WRITERS[type(step)](self, step)
            self._made(step)
            self._written |= {id(op) for op in (step.sinks if isinstance(step, Nest) else (step,))}

    def _comment(self, op: Comment) -> None:
        self.add(f"// {op.text}")

    def _elementwise(self, op: Elementwise) -> None:
        args = [self.scalar(a) for a in op.args]
        self.declare_scalar(op.out, write_call(op.fn, args, op.out.dtype).code)

    def _cast(self, op: Cast) -> None:
        self.declare_scalar(op.out, write_cast(self.scalar(op.x), op.out.dtype).code)

    def _nest(self, nest: Nest) -> None:
        axes = self.layout.sort(nest.axes)
        pair_axis = None
        overwritten: list[Value] = []
        for sink in nest.sinks:
            if not sink.out.axes:
                name = self.fresh(sink.out.name)
                self.add(f"{SCALAR_TYPE[sink.out.dtype]} {name};")
                self._scalars[sink.out.name] = Text(name, sink.out.dtype)
                continue
            pair_axis = self._declare_sink(sink.out, nest, pair_axis, overwritten)
        text = NestText(self, axes, nest.over, self.in_vectors(axes), pair_axis)
        text.make(nest.sinks, overwritten)
        self.add(*text.lines())
        for sink in nest.sinks:
            late_forms(self, sink.out)

    def _declare_sink(
        self, value: Value, nest: Nest, pair_axis: str | None, overwritten: list[Value]
    ) -> str | None:
        """Declare what a nest fills; gives the axis that it has to take two at a time."""
        made_here = value.axes == nest.axes
        late = False
        for form, over in sorted(self.operand_forms.get(value.name, ())):
            lane = self.layout.of(value)[-1]
            in_nest = form == "rows" or (
                over != lane and nest.over in (None, over) and pair_axis in (None, over)
            )
            in_nest = in_nest and self.in_vectors(self.layout.of(value))
            if not made_here or not in_nest or form == "columns":
                late = True
                continue
            declare_form(self, value, form, over)
            if form == "pairs":
                pair_axis = over
        if late or self.needs_plain(value) or value.axes != nest.axes:
            source = self._overwritable(value, nest) if made_here else None
            if source is None:
                self.declare(value)
            else:
                overwritten.append(source)
                self.take(value, source)
        return pair_axis

    def _overwritable(self, value: Value, nest: Nest) -> Value | None:
        """A value that a nest reads in place of which it can put another: a state, mostly."""
        handed = self._yields[-1] if self._yields else {}
        own = [handed[value.name]] if value.name in handed else []
        read = [b for s in nest.sinks for v in operands(s) for b in self.fusion.bases(v)]
        waiting = {handed[s.out.name].name for s in nest.sinks if s.out.name in handed}
        others = [v for v in read if v.name not in waiting]
        fits = (v for v in [*own, *others] if self.may_overwrite(v, value, *nest.sinks))
        return next(fits, None)

    def may_overwrite(self, old: Value, new: Value, *doing: Op) -> bool:
        """Whether a value can take the place of another of the same type.

        What a loop hands over is not put where another of its values will be.
        """
        if old.axes != new.axes or ARRAY_TYPE[old.dtype] != ARRAY_TYPE[new.dtype]:
            return False
        handed = self._yields[-1] if self._yields else {}
        if new.name in handed:
            own = handed[new.name].name
            taken = {self.arrays[v.name].name for v in handed.values() if v.name != own}
            if old.name in self.arrays and self.arrays[old.name].name in taken:
                return False
        return self.is_free(old, *doing)

    def declared(self, value: Value) -> str:
        """The name of a value's array, made and filled where there is none yet."""
        if value.name not in self.arrays:
            array = self.declare(value)
            self.fill(array, value)
        return self.arrays[value.name].name

    def is_current(self, value: Value) -> bool:
        """Whether a value belongs to the body at hand: a loop around it does not need it again."""
        return self.fusion.depth[value.name] == self._loops_around

    def fill(self, array: Array, value: Value) -> None:
        """Write a value to an array of its own axes."""
        nest = NestText(self, array.axes, vector=self.in_vectors(array.axes))
        nest.store(array.name, array.axes, nest.value(value))
        self.add(*nest.lines())

    # -------------------------------------------------------------------------------- loops

    def _for(self, op: For) -> None:
        for carried in op.carried:
            self._carry(op, carried)
        variable = self.fresh(op.variable.name)
        start, stop = self.scalar(op.start).code, self.scalar(op.stop).code
        step = op.step if isinstance(op.step, int) else self._scalars[op.step].code
        self._scalars[op.variable.name] = Text(variable, op.variable.dtype)
        self.add(
            f"for (int32_t {variable} = {start}; {variable} < {stop}; {variable} += {step}) {{"
        )
        self._lines.append([])
        self._loops_around += 1
        around, self.row = self.row, op.variable if isinstance(op.step, int) else None
        pairs = zip(op.yields, op.carried, strict=True)
        self._yields.append({v.name: c.inner for v, c in pairs if v.axes})
        for carried in op.carried:
            if carried.inner.axes:
                late_forms(self, carried.inner)
        self._body(op.body)
        self._hand_over(op)
        self._yields.pop()
        self._loops_around -= 1
        self.row = around
        body = self._lines.pop()
        self.add(*[f"  {line}" for line in body], "}")
        for carried in op.carried:
            if carried.out.axes:
                array = self.arrays[carried.inner.name]
                self.bind(carried.out, array.name, array.axes)
                late_forms(self, carried.out)
            else:
                self._scalars[carried.out.name] = self._scalars[carried.inner.name]

    def _carry(self, op: For, carried: Carried) -> None:
        inner, initial = carried.inner, carried.initial
        if not inner.axes:
            name = self.fresh(inner.name)
            self.add(f"{SCALAR_TYPE[inner.dtype]} {name} = {self.scalar(initial).code};")
            self._scalars[inner.name] = Text(name, inner.dtype)
        elif self.is_free(initial, op):
            self.take(inner, initial)
        else:
            self.fill(self.declare(inner), initial)

    def _hand_over(self, op: For) -> None:
        """Give each carried variable its new value; all are read before any is written."""
        pending = []
        inner = {c.inner.name for c in op.carried}
        for carried, value in zip(op.carried, op.yields, strict=True):
            if not value.axes:
                name = self.fresh(f"{carried.inner.name}_next")
                self.add(f"const {SCALAR_TYPE[value.dtype]} {name} = {self.scalar(value).code};")
                pending.append(f"{self._scalars[carried.inner.name].code} = {name};")
                continue
            source, target = self.declared(value), self.arrays[carried.inner.name].name
            if source == target:
                continue
            if value.name in inner:
                copy = self.fresh(f"{source}_copy")
                kind = ARRAY_TYPE[value.dtype]
                self.local(kind, copy, self.size(self.layout.of(value)))
                self.add(f"memcpy({copy}, {source}, {self.locals.bytes[copy]});")
                source = copy
            pending.append(f"memcpy({target}, {source}, {self.locals.bytes[source]});")
        self.add(*pending)

    def _made(self, step: Step) -> None:
        """Make the forms in which dots want what an op has made."""
        if isinstance(step, Dot | Scan | Combine | Substitute | Solve):
            for value in made_by(step):
                late_forms(self, value)


_WRITERS: Mapping[type[Step], Callable[[KernelText, Any], None]] = {
    Comment: KernelText._comment,
    Elementwise: KernelText._elementwise,
    Cast: KernelText._cast,
    Nest: KernelText._nest,
    Load: write_load,
    Store: write_store,
    Search: write_search,
    Dot: write_dot,
    Scan: write_scan,
    Combine: write_combine,
    Rename: write_rename,
    Substitute: write_substitute,
    Solve: write_solve,
    For: KernelText._for,
}
