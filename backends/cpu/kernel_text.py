"""One tile program as one C++ function."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    Range,
    Scan,
    Search,
    SizeArgument,
    Store,
    Value,
    all_ops,
)
from .functions import MEMORY_TYPE, SCALAR_TYPE, Text, write_call, write_cast, write_number
from .fusion import Fusion, Nest, Step
from .layout import choose_layout, dot_operands
from .memory import Access, AccessReader
from .nest import NestText
from .target import CpuTarget

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
        self._plain, self._operand_forms = self._requests()
        self._loop_variables: list[Value] = []
        self._direct: dict[tuple[str, str], tuple[str, str, str]] = {}
        self._direct_right: dict[tuple[str, str], tuple[str, str]] = {}
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

    def _declare_scalar(self, value: Value, code: str) -> None:
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

    def _size(self, axes: tuple[str, ...]) -> int:
        total = 1
        for axis in axes:
            total *= self.blocks[axis]
        return total

    def _declare(self, value: Value) -> Array:
        if value.name not in self.arrays:
            axes = self.layout.of(value)
            name = self.fresh(value.name)
            kind = "float" if value.dtype.is_float else "int32_t"
            self.add(f"alignas(64) {kind} {name}[{self._size(axes)}];")
            self.arrays[value.name] = Array(name, axes)
        return self.arrays[value.name]

    # ------------------------------------------------------------------- operands of dots

    def _paired(self, dot: Dot) -> bool:
        return self.target.paired_dot and dot.a.dtype is DType.BFLOAT16

    def _requests(self) -> tuple[set[str], dict[str, set[tuple[str, str]]]]:
        """Which values need a plain array, and which other forms dots want of which values."""
        forms: dict[str, set[tuple[str, str]]] = defaultdict(set)
        plain: set[str] = set()
        for op in all_ops(self.program.body):
            if not isinstance(op, Dot):
                continue
            operands = dot_operands(op, self.layout)
            for value, other in ((operands.left, operands.row), (operands.right, operands.column)):
                maker = self.fusion.makers.get(value.name)
                left = value is operands.left
                if not self._paired(op):
                    if left and isinstance(maker, Load) and value.dtype is DType.FLOAT32:
                        forms[value.name].add(("pointer", op.over))
                    elif not left and self._rows_of_vectors(value, other):
                        forms[value.name].add(("vectors", op.over))
                    elif not left and self.layout.of(value) != (op.over, other):
                        forms[value.name].add(("columns", op.over))
                    else:
                        plain.add(value.name)
                elif left and self._rows_in_memory(value, op.over, other):
                    forms[value.name].add(("rows", op.over))
                else:
                    forms[value.name].add(("pairs", op.over))
        return plain, forms

    def _rows_of_vectors(self, value: Value, column: str) -> bool:
        """Whether a loaded operand lies in memory with its columns side by side."""
        maker = self.fusion.makers.get(value.name)
        if not isinstance(maker, Load) or value.dtype is not DType.FLOAT32:
            return False
        dims = [next(iter(v.axes)) for _, v in maker.index if len(v.axes) == 1]
        return bool(dims) and dims[-1] == column

    def _rows_in_memory(self, value: Value, over: str, other: str) -> bool:
        """Whether pairs along ``over`` lie side by side already."""
        maker = self.fusion.makers.get(value.name)
        if isinstance(maker, Load):
            dims = [next(iter(v.axes)) for _, v in maker.index if len(v.axes) == 1]
            return bool(dims) and dims[-1] == over
        return self.layout.of(value) == (other, over)

    def _needs_plain(self, value: Value) -> bool:
        """Whether something reads the value's array of numbers."""
        if value.name in self._plain:
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
                    self._declare_scalar(value, write_number(params[name], dtype))
                    continue
                case _:
                    continue
            place += 1
            self._declare_scalar(value, code)
        for tile in self.program.tiles:
            self._declare_scalar(Value(tile.symbol, DType.INT32), str(tile.block))
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
            self._declare_scalar(axis.position, f"int32_t({code})")
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
        self._declare_scalar(op.out, write_call(op.fn, args, op.out.dtype).code)

    def _cast(self, op: Cast) -> None:
        self._declare_scalar(op.out, write_cast(self.scalar(op.x), op.out.dtype).code)

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
            self._late_forms(sink.out)

    def _declare_sink(self, value: Value, nest: Nest, pair_axis: str | None) -> str | None:
        """Declare what a nest fills; gives the axis that it has to take two at a time."""
        made_here = value.axes == nest.axes
        late = False
        for form, over in sorted(self._operand_forms.get(value.name, ())):
            lane = self.layout.of(value)[-1]
            in_nest = form == "rows" or (
                over != lane and nest.over in (None, over) and pair_axis in (None, over)
            )
            in_nest = in_nest and self.in_vectors(self.layout.of(value))
            if not made_here or not in_nest or form == "columns":
                late = True
                continue
            self._declare_form(value, form)
            if form == "pairs":
                pair_axis = over
        if late or self._needs_plain(value) or value.axes != nest.axes:
            self._declare(value)
        return pair_axis

    def _declare_form(self, value: Value, form: str) -> str:
        name = self.fresh(f"{value.name}_{form}")
        size = self._size(self.layout.of(value))
        kind = {"pairs": "uint32_t", "rows": "uint16_t", "columns": "float"}[form]
        count = size // 2 if form == "pairs" else size
        self.add(f"alignas(64) {kind} {name}[{count}];")
        self.forms[value.name][form] = name
        return name

    def _late_forms(self, value: Value) -> None:
        """Forms that are made from the plain array."""
        for form, over in sorted(self._operand_forms.get(value.name, ())):
            form = "columns" if form == "vectors" else form
            if form in self.forms[value.name] or form == "pointer":
                continue
            axes = self.layout.of(value)
            (other,) = value.axes - {over}
            name = self._declare_form(value, form)
            array = self.arrays[value.name].name
            strides = {axes[0]: self.blocks[axes[1]], axes[1]: 1}
            rows, columns = (other, over) if form == "rows" else (over, other)
            self.add(
                f"mx::make_{form}<{self.blocks[rows]}, {self.blocks[columns]}>("
                f"{name}, {array}, {strides[rows]}, {strides[columns]});"
            )

    # ------------------------------------------------------------------------------- memory

    def _load(self, op: Load) -> None:
        if not op.out.axes:
            self._load_number(op)
            return
        access = self.reader.access(op) if len(op.out.axes) <= 2 else None
        if access is None or set(access.strides) != set(op.out.axes):
            self._declare(op.out)
            self._gather(op)
            self._late_forms(op.out)
            return
        self._prefetch(op, access)
        if self._needs_plain(op.out):
            self._load_plain(op, access)
        for form, over in sorted(self._operand_forms.get(op.out.name, ())):
            _LOAD_FORMS[form](self, op, access, over)

    def _prefetch(self, op: Load, access: Access) -> None:
        """Ask for the tile of the loop's next turn, where that lies a block further."""
        variable = self._loop_variables[-1] if self._loop_variables else None
        for dim, value in op.index:
            maker = self.fusion.makers.get(value.name)
            if isinstance(maker, Range) and maker.start == variable is not None:
                (axis,) = value.axes
                axes = self.layout.of(op.out)
                if len(axes) != 2 or op.mask is not None:
                    return
                (other,) = op.out.axes - {axis}
                ahead = f"{access.pointer} + {self.blocks[axis]} * {op.buffer}_stride_{dim}"
                sizes = f"{self.blocks[axis]}, {self.blocks[other]}"
                strides = f"{access.strides[axis]}, {access.strides[other]}"
                self.add(f"mx::prefetch_tile<{sizes}>({ahead}, {strides});")

    def _load_number(self, op: Load) -> None:
        terms = [f"int64_t({self.scalar(v).code}) * {op.buffer}_stride_{d}" for d, v in op.index]
        code = f"mx::widen({op.buffer}[{' + '.join(terms) or '0'}])"
        if op.mask is not None:
            fill = write_number(op.fill, op.out.dtype)
            code = f"{self.scalar(op.mask).code} ? {code} : {fill}"
        self._declare_scalar(op.out, code)

    def _load_plain(self, op: Load, access: Access) -> None:
        array = self._declare(op.out)
        axes = array.axes if len(array.axes) == 2 else (None, *array.axes)
        fill = write_number(op.fill, op.out.dtype)
        if not op.out.dtype.is_float:
            fill = f"int32_t({'-' if op.out.dtype is DType.BOOL else ''}int32_t({fill}))"
        name = "load_flags" if op.out.dtype is DType.BOOL else "load_tile"
        self._tile_call(name, array.name, access, axes, fill)

    def _tile_call(
        self, name: str, to: str, access: Access, axes: tuple[str | None, ...], *extra: str
    ) -> None:
        rows, columns = axes
        blocks = [str(self.blocks[a]) if a else "1" for a in (rows, columns)]
        strides = [access.strides[a] if a else "0" for a in (rows, columns)]
        args = [to, access.pointer, *strides, *self._counts(access, axes), *extra]
        self.add(f"mx::{name}<{', '.join(blocks)}>({', '.join(args)});")

    def _counts(self, access: Access, axes: tuple[str | None, ...]) -> list[str]:
        found = []
        for axis in axes:
            if axis is None:
                found.append("1")
            elif axis in access.counts:
                found.append(f"mx::clip({access.counts[axis]}, {self.blocks[axis]})")
            else:
                found.append(str(self.blocks[axis]))
        return found

    def _load_columns(self, op: Load, access: Access, over: str) -> None:
        (other,) = op.out.axes - {over}
        name = self._declare_form(op.out, "columns")
        fill = write_number(op.fill, op.out.dtype)
        self._tile_call("load_tile", name, access, (over, other), fill)

    def _load_pairs(self, op: Load, access: Access, over: str) -> None:
        (other,) = op.out.axes - {over}
        name = self._declare_form(op.out, "pairs")
        self._tile_call("load_pairs", name, access, (over, other))

    def _load_rows(self, op: Load, access: Access, over: str) -> None:
        """Where rows lie in memory as a dot wants them they are read there, else copied."""
        (other,) = op.out.axes - {over}
        name = self._declare_form(op.out, "rows")
        pointer, stride = self.fresh(f"{op.out.name}_at"), self.fresh(f"{op.out.name}_row")
        self.add(f"const uint16_t* {pointer} = (const uint16_t*)({access.pointer});")
        self.add(f"int64_t {stride} = {access.strides[other]};")
        whole = [f"{access.strides[over]} == 1", *self._whole(access)]
        self.add(f"if (!({' && '.join(whole)})) {{")
        self._tile_call("load_rows", name, access, (other, over))
        self.add(f"{pointer} = {name};", f"{stride} = {self.blocks[over]};", "}")
        self._direct[op.out.name, over] = (pointer, stride, "2")

    def _load_pointer(self, op: Load, access: Access, over: str) -> None:
        """Numbers that a dot spreads over vectors may lie anyhow: no copy while all exist."""
        (other,) = op.out.axes - {over}
        axes = self.layout.of(op.out)
        pointer, stride = self.fresh(f"{op.out.name}_at"), self.fresh(f"{op.out.name}_row")
        step = self.fresh(f"{op.out.name}_step")
        self.add(f"const float* {pointer} = {access.pointer};")
        self.add(f"int64_t {stride} = {access.strides[other]}, {step} = {access.strides[over]};")
        whole = self._whole(access)
        if whole:
            name = self.fresh(f"{op.out.name}_copy")
            self.add(f"alignas(64) float {name}[{self._size(axes)}];")
            self.add(f"if (!({' && '.join(whole)})) {{")
            fill = write_number(op.fill, op.out.dtype)
            self._tile_call("load_tile", name, access, axes, fill)
            inner = {axes[0]: self.blocks[axes[1]], axes[1]: 1}
            self.add(f"{pointer} = {name};")
            self.add(f"{stride} = {inner[other]};", f"{step} = {inner[over]};", "}")
        self._direct[op.out.name, over] = (pointer, stride, step)

    def _load_vectors(self, op: Load, access: Access, over: str) -> None:
        """Where columns lie side by side and all exist they are read in place, else copied."""
        (column,) = op.out.axes - {over}
        pointer, stride = self.fresh(f"{op.out.name}_at"), self.fresh(f"{op.out.name}_row")
        name = self._declare_form(op.out, "columns")
        self.add(f"const float* {pointer} = {access.pointer};")
        self.add(f"int64_t {stride} = {access.strides[over]};")
        whole = [f"{access.strides[column]} == 1", *self._whole(access)]
        self.add(f"if (!({' && '.join(whole)})) {{")
        fill = write_number(op.fill, op.out.dtype)
        self._tile_call("load_tile", name, access, (over, column), fill)
        self.add(f"{pointer} = {name};", f"{stride} = {self.blocks[column]};", "}")
        self._direct_right[op.out.name, over] = (pointer, stride)

    def _whole(self, access: Access) -> list[str]:
        return [f"{count} >= {self.blocks[axis]}" for axis, count in access.counts.items()]

    def _gather(self, op: Load) -> None:
        array = self.arrays[op.out.name]
        nest = NestText(self, array.axes, vector=False)
        code = f"mx::widen({op.buffer}[{self._address(nest, op)}])"
        if op.mask is not None:
            fill = write_number(op.fill, op.out.dtype)
            code = f"{nest.value(op.mask).code} ? {code} : {fill}"
        nest.store(array.name, array.axes, Text(f"({code})", op.out.dtype))
        self.add(*nest.lines())

    def _address(self, nest: NestText, op: Load | Store) -> str:
        terms = [f"int64_t({nest.value(v).code}) * {op.buffer}_stride_{d}" for d, v in op.index]
        return " + ".join(terms) or "0"

    def _store(self, op: Store) -> None:
        axes = self.layout.sort(frozenset[str]().union(*(v.axes for _, v in op.index)))
        kind = MEMORY_TYPE[self.program.buffers[op.buffer].dtype]
        access = self.reader.access(op) if len(axes) <= 2 else None
        whole = access is not None and set(access.strides) == set(axes) == set(op.value.axes)
        if whole and axes and op.value.dtype is not DType.BOOL:
            assert access is not None
            placed = axes if len(axes) == 2 else (None, *axes)
            pointer = Access(f"({kind}*)({access.pointer})", access.strides, access.counts)
            self._store_call(pointer, self._declared(op.value), placed)
            return
        nest = NestText(self, axes, vector=False)
        value = nest.value(op.value)
        code = f"mx::narrow<{kind}>({value.code})" if value.dtype.is_float else value.code
        line = f"{op.buffer}[{self._address(nest, op)}] = {code};"
        if op.mask is not None:
            line = f"if ({nest.value(op.mask).code}) {line}"
        nest.inner.append(line)
        self.add(*nest.lines())

    def _declared(self, value: Value) -> str:
        if value.name not in self.arrays:
            array = self._declare(value)
            self._fill(array, value)
        return self.arrays[value.name].name

    def _store_call(self, access: Access, array: str, axes: tuple[str | None, ...]) -> None:
        blocks = [str(self.blocks[a]) if a else "1" for a in axes]
        strides = [access.strides[a] if a else "0" for a in axes]
        args = [access.pointer, array, *strides, *self._counts(access, axes)]
        self.add(f"mx::store_tile<{', '.join(blocks)}>({', '.join(args)});")

    def _search(self, op: Search) -> None:
        terms = [
            f"int64_t({self.scalar(v).code}) * {op.buffer}_stride_{d}"
            for d, v in op.index
            if d != op.dim
        ]
        table = " + ".join([op.buffer, *terms])
        right = "true" if op.side == "right" else "false"
        args = [table, f"{op.buffer}_stride_{op.dim}", self.scalar(op.size).code]
        args.append(self.scalar(op.value).code)
        self._declare_scalar(op.out, f"mx::search_sorted<{right}>({', '.join(args)})")

    # --------------------------------------------------------------------- dots and scans

    def _dot(self, op: Dot) -> None:
        operands = dot_operands(op, self.layout)
        start, scale = self._start_dot(op, operands.row, operands.column)
        out = self.arrays[op.out.name].name
        kind = "mx::Pairs" if self._paired(op) else "mx::Floats"
        m, n, k = (self.blocks[a] for a in (operands.row, operands.column, op.over))
        left = self._left(operands.left, operands.row, op)
        right = self._right(operands.right, op)
        # A few rows need more vectors of each to keep the multipliers busy.
        vectors = self.dot_vectors if m >= self.dot_rows else max(8 // m, 1)
        shape = f"{kind}, {m}, {n}, {k}, {self.dot_rows}, {vectors}, mx::Start::{start}"
        self.add(f"mx::dot<{shape}>({', '.join([out, *left, *right, *scale])});")

    def _start_dot(self, op: Dot, row: str, column: str) -> tuple[str, list[str]]:
        """What the sums start from: nothing, the array itself, or the array times a factor."""
        acc = op.acc
        if acc is None or self._is_zero(acc):
            self._declare(op.out)
            return "ZERO", []
        source, factor = self._scaled(acc)
        if source is not None and self._ends_here(source, op):
            self.arrays[op.out.name] = self.arrays[source.name]
            if factor is None:
                return "OUT", []
            start = "ROWS_SCALED" if factor.axes == {row} else "COLUMNS_SCALED"
            return start, [self.arrays[factor.name].name]
        array = self._declare(op.out)
        self._fill(array, acc)
        return "OUT", []

    def _is_zero(self, value: Value) -> bool:
        maker = self.fusion.makers.get(value.name)
        return isinstance(maker, Constant) and maker.value == 0

    def _scaled(self, acc: Value) -> tuple[Value | None, Value | None]:
        """The array and the factor per row or column whose product ``acc`` is, if it is one."""
        if acc.name in self.arrays and self.arrays[acc.name].axes == self.layout.of(acc):
            return acc, None
        maker = self.fusion.makers.get(acc.name)
        match maker:
            case Elementwise(_, "mul", (a, b)) if acc.name in self.fusion.virtual:
                for x, y in ((a, b), (b, a)):
                    if x.axes == acc.axes and len(y.axes) == 1:
                        if x.name in self.arrays and y.name in self.arrays:
                            return x, y
        return None, None

    def _ends_here(self, value: Value, op: Dot) -> bool:
        """Whether a dot is the only reader of a value, so that it may be updated in place."""
        readers = self.fusion.chain_readers(value.name)
        return len(readers) == 1 and readers[0] is op and self._is_current(value)

    def _is_current(self, value: Value) -> bool:
        return value.name in self._carried_here or value.name not in self._carried_arrays

    @property
    def _carried_here(self) -> set[str]:
        return self._carried_stack[-1] if self._carried_stack else set()

    @property
    def _carried_arrays(self) -> set[str]:
        return {name for names in self._carried_stack for name in names}

    @property
    def _carried_stack(self) -> list[set[str]]:
        if not hasattr(self, "_stack"):
            self._stack: list[set[str]] = []
        return self._stack

    def _fill(self, array: Array, value: Value) -> None:
        """Write a value to an array of its own axes."""
        nest = NestText(self, array.axes, vector=self.in_vectors(array.axes))
        nest.store(array.name, array.axes, nest.value(value))
        self.add(*nest.lines())

    def _left(self, value: Value, row: str, op: Dot) -> list[str]:
        direct = self._direct.get((value.name, op.over))
        if direct is not None:
            return list(direct)
        forms = self.forms[value.name]
        if self._paired(op) and "rows" in forms:
            return [forms["rows"], str(self.blocks[op.over]), "2"]
        if self._paired(op):
            return [f"(const uint16_t*){forms['pairs']}", "2", str(2 * self.blocks[row])]
        array = self.arrays[value.name]
        inner = {array.axes[0]: self.blocks[array.axes[1]], array.axes[1]: 1}
        return [array.name, str(inner[row]), str(inner[op.over])]

    def _right(self, value: Value, op: Dot) -> tuple[str, str]:
        (column,) = value.axes - {op.over}
        direct = self._direct_right.get((value.name, op.over))
        if direct is not None:
            return direct
        forms, width = self.forms[value.name], str(self.blocks[column])
        if self._paired(op):
            return forms["pairs"], width
        if self.layout.of(value)[0] != op.over:
            return forms["columns"], width
        return self.arrays[value.name].name, width

    def _scan(self, op: Scan) -> None:
        array = self._declare(op.out)
        rest = tuple(a for a in array.axes if a != op.over)
        source = self._declared(op.x)
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
        self._carried_stack.append({c.inner.name for c in op.carried})
        self._loop_variables.append(op.variable)
        self._body(op.body)
        self._hand_over(op)
        self._carried_stack.pop()
        self._loop_variables.pop()
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
            self._fill(self._declare(inner), initial)

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
            source, target = self._declared(value), self.arrays[carried.inner.name].name
            if source == target:
                continue
            if value.name in inner:
                copy = self.fresh(f"{source}_copy")
                kind = "float" if value.dtype.is_float else "int32_t"
                self.add(f"alignas(64) {kind} {copy}[{self._size(self.layout.of(value))}];")
                self.add(f"memcpy({copy}, {source}, sizeof {copy});")
                source = copy
            pending.append(f"memcpy({target}, {source}, sizeof {source});")
        self.add(*pending)


_LOAD_FORMS: Mapping[str, Callable[[KernelText, Load, Access, str], None]] = {
    "pairs": KernelText._load_pairs,
    "columns": KernelText._load_columns,
    "vectors": KernelText._load_vectors,
    "rows": KernelText._load_rows,
    "pointer": KernelText._load_pointer,
}
_WRITERS: Mapping[type[Step], Callable[[KernelText, Step], None]] = {
    Comment: KernelText._comment,
    Elementwise: KernelText._elementwise,
    Cast: KernelText._cast,
    Nest: KernelText._nest,
    Load: KernelText._load,
    Store: KernelText._store,
    Search: KernelText._search,
    Dot: KernelText._dot,
    Scan: KernelText._scan,
    For: KernelText._for,
}  # type: ignore[dict-item]
