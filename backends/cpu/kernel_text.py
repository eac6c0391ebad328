"""One tile program as one C++ function."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...ir.tile import (
    Cast,
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
    Scan,
    Search,
    SizeArgument,
    Store,
    Value,
)
from .functions import MEMORY_TYPE, SCALAR_TYPE, Text, write_call, write_cast, write_number
from .fusion import Fusion, Nest, Step
from .layout import choose_layout
from .memory import AccessReader
from .nest import NestText
from .products import declare_form, late_forms, operand_requests, write_dot
from .target import CpuTarget
from .tile_memory import write_load, write_search, write_store

_RESERVED = frozenset(
    "and or not xor bitand bitor compl auto bool char const do double else enum float for if int "
    "long new register return short signed static switch this try union void while default "
    "operator private public struct template typename using namespace case catch class delete "
    "explicit export extern false friend goto inline mutable throw true typedef unsigned virtual "
    "volatile break continue sizeof alignas asm args threads program rest v u mx main".split()
)


@dataclass(frozen=True, slots=True)
class Array:
    """A local array: its name in the text, and the axes it has, row-major."""

    name: str
    axes: tuple[str, ...]


class KernelText:
    """The writer of one kernel; ``lines`` is the result."""

    def __init__(self, program: Program, target: CpuTarget, params: Mapping[str, float]) -> None:
        self.program = program
        self.target = target
        self.blocks = {t.dim: t.block for t in program.tiles}
        launch = dict(program.launch)
        self.vectors_at_once = launch.get("vectors_at_once", 4)
        self.dot_rows = launch.get("dot_rows", 6)
        self.dot_vectors = launch.get("dot_vectors", 4)
        self.layout = choose_layout(program, target.lanes)
        self.fusion = Fusion(program, self.layout)
        self.reader = AccessReader(self.fusion.makers, lambda v: self.scalar(v).code)
        self.arrays: dict[str, Array] = {}
        self.forms: dict[str, dict[str, str]] = defaultdict(dict)
        self._scalars: dict[str, Text] = {}
        self._taken: set[str] = set(_RESERVED)
        self._lines: list[list[str]] = [[]]
        self.plain, self.operand_forms = operand_requests(self)
        self._loops_around = 0
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
            kind = "float" if value.dtype.is_float else "int32_t"
            self.add(f"alignas(64) {kind} {name}[{self.size(axes)}];")
            self.arrays[value.name] = Array(name, axes)
        return self.arrays[value.name]

    def needs_plain(self, value: Value) -> bool:
        """Whether something reads the value's array of numbers."""
        if value.name in self.plain:
            return True
        readers = self.fusion.readers[value.name]
        others = [r for r in readers if not isinstance(r, Dot) or r.acc == value]
        if value.name in self.fusion.nest_of:
            return value.name in self.fusion.stored and bool(others)
        return bool(others)

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
        for tile in self.program.tiles:
            self.declare_scalar(Value(tile.symbol, DType.INT32), str(tile.block))
        self.argument_count = place

    def _grid(self) -> None:
        axes = sorted(self.program.grid, key=lambda g: not g.tiled)
        counts = []
        for axis in axes:
            size = self._length(axis.dim)
            if axis.tiled:
                block = self.blocks[axis.dim]
                size = f"(int64_t({size}) + {block - 1}) / {block}"
            name = self.fresh(f"{axis.dim}_count")
            self.add(f"const int64_t {name} = {size};")
            counts.append(name)
        self.add(f"const int64_t programs = {' * '.join(counts) or '1'};")
        self.add("#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)")
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

    def _length(self, dim: str) -> str:
        for tile in self.program.tiles:
            if tile.dim == dim and tile.size is not None:
                return str(tile.size)
        return self._scalars[dim].code

    # -------------------------------------------------------------------------------- steps

    def _body(self, body: tuple[Op, ...]) -> None:
        for step in self.fusion.steps[id(body)]:
            _WRITERS[type(step)](self, step)

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
        for sink in nest.sinks:
            if not sink.out.axes:
                name = self.fresh(sink.out.name)
                self.add(f"{SCALAR_TYPE[sink.out.dtype]} {name};")
                self._scalars[sink.out.name] = Text(name, sink.out.dtype)
                continue
            pair_axis = self._declare_sink(sink.out, nest, pair_axis)
        text = NestText(self, axes, nest.over, self.in_vectors(axes), pair_axis)
        text.make(nest.sinks)
        self.add(*text.lines())
        for sink in nest.sinks:
            late_forms(self, sink.out)

    def _declare_sink(self, value: Value, nest: Nest, pair_axis: str | None) -> str | None:
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
            declare_form(self, value, form)
            if form == "pairs":
                pair_axis = over
        if late or self.needs_plain(value) or value.axes != nest.axes:
            self.declare(value)
        return pair_axis

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

    def _scan(self, op: Scan) -> None:
        array = self.declare(op.out)
        rest = tuple(a for a in array.axes if a != op.over)
        source = self.declared(op.x)
        block = self.blocks[op.over]
        place = self.place(array.axes)
        for axis in rest:
            self.add(f"for (int at_{axis} = 0; at_{axis} < {self.blocks[axis]}; ++at_{axis}) {{")
        kind = SCALAR_TYPE[op.out.dtype]
        so_far = self.fresh(f"{array.name}_so_far")
        self.add("{", f"{kind} {so_far} = 0;", f"for (int turn = 0; turn < {block}; ++turn) {{")
        self.add(f"const int at_{op.over} = {f'{block - 1} - turn' if op.reverse else 'turn'};")
        self.add(f"{so_far} += {source}[{place}];", f"{array.name}[{place}] = {so_far};")
        self.add("}" * (2 + len(rest)))

    # -------------------------------------------------------------------------------- loops

    def _for(self, op: For) -> None:
        for carried in op.carried:
            self._carry(carried.inner, carried.initial)
        variable = self.fresh(op.variable.name)
        start, stop = self.scalar(op.start).code, self.scalar(op.stop).code
        step = op.step if isinstance(op.step, int) else self._scalars[op.step].code
        self._scalars[op.variable.name] = Text(variable, op.variable.dtype)
        self.add(
            f"for (int32_t {variable} = {start}; {variable} < {stop}; {variable} += {step}) {{"
        )
        self._lines.append([])
        self._loops_around += 1
        self._body(op.body)
        self._hand_over(op)
        self._loops_around -= 1
        body = self._lines.pop()
        self.add(*[f"  {line}" for line in body], "}")
        for carried in op.carried:
            if carried.out.axes:
                self.arrays[carried.out.name] = self.arrays[carried.inner.name]
            else:
                self._scalars[carried.out.name] = self._scalars[carried.inner.name]

    def _carry(self, inner: Value, initial: Value) -> None:
        if not inner.axes:
            name = self.fresh(inner.name)
            self.add(f"{SCALAR_TYPE[inner.dtype]} {name} = {self.scalar(initial).code};")
            self._scalars[inner.name] = Text(name, inner.dtype)
        elif initial.name in self.arrays and len(self.fusion.readers[initial.name]) == 1:
            self.arrays[inner.name] = self.arrays[initial.name]
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
                kind = "float" if value.dtype.is_float else "int32_t"
                self.add(f"alignas(64) {kind} {copy}[{self.size(self.layout.of(value))}];")
                self.add(f"memcpy({copy}, {source}, sizeof {copy});")
                source = copy
            pending.append(f"memcpy({target}, {source}, sizeof {source});")
        self.add(*pending)


_WRITERS: Mapping[type[Step], Callable[[KernelText, Any], None]] = {
    Comment: KernelText._comment,
    Elementwise: KernelText._elementwise,
    Cast: KernelText._cast,
    Nest: KernelText._nest,
    Load: write_load,
    Store: write_store,
    Search: write_search,
    Dot: write_dot,
    Scan: KernelText._scan,
    For: KernelText._for,
}
