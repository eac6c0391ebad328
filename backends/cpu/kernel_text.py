"""One tile program as one C++ function: its arguments, its grid, and its body step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...ir.targets import CpuTarget
from ...ir.task import AttentionTask, ListedKeysTask, ListedRowsTask
from ...ir.tile import (
    Carried,
    Cast,
    Combine,
    Comment,
    Convolve,
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
)
from .convolve import write_convolve
from .functions import (
    ARRAY_TYPE,
    MEMORY_TYPE,
    SCALAR_TYPE,
    Text,
    write_call,
    write_cast,
    write_number,
)
from .fusion import Nest, Step
from .kernel_scope import KernelScope
from .nest import declared, fill
from .products import pack_operands, write_dot
from .rows_that_count import rows_that_count
from .scans import write_combine, write_scan
from .sinks import write_nest
from .systems import write_rename, write_solve, write_substitute
from .tile_memory import rows_fit, write_load, write_search, write_store

_OF_PAIRS = {task.schedule for task in (AttentionTask, ListedRowsTask, ListedKeysTask)}


class KernelText(KernelScope):
    """The writer of one kernel; ``lines`` is the result."""

    def __init__(
        self,
        program: Program,
        target: CpuTarget,
        params: Mapping[str, float],
        sizes: Mapping[str, int] = {},
        schedule: str = "",
    ) -> None:
        super().__init__(program, target, sizes)
        if schedule in _OF_PAIRS:
            self.quick_over = frozenset(tile.dim for tile in program.tiles if not tile.whole)
        self._write(params)
        self.lines = self.bodies[0]

    # --------------------------------------------------------------------------- the whole

    def _write(self, params: Mapping[str, float]) -> None:
        program = self.program
        self.add(f"static void {program.name}(const int64_t* args, const int threads) {{")
        self.bodies.append([])
        self._arguments(params)
        self._grid()
        body = self.bodies.pop()
        self.bodies[-1].extend([f"  {line}" for line in body] + ["}"])

    def _arguments(self, params: Mapping[str, float]) -> None:
        place = 0
        for buffer in self.program.buffers.values():
            kind = MEMORY_TYPE[buffer.dtype] + ("" if buffer.written else " const")
            self.taken.add(buffer.name)
            self.add(f"{kind}* const {buffer.name} = ({kind}*)args[{place}];")
            place += 1
            for dim in buffer.dims:
                self.add(f"const int64_t {buffer.name}_stride_{dim} = args[{place}];")
                self.taken.add(f"{buffer.name}_stride_{dim}")
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
        if self.tiled:
            self.add("#pragma omp parallel num_threads(team)", "{")
            self.add(f"const mx::Tiles<{'true' if self.half_tiles else 'false'}> tiles;")
            self.add("#pragma omp for schedule(dynamic, 1)")
        else:
            self.add("#pragma omp parallel for schedule(dynamic, 1) num_threads(team)")
        self.add("for (int64_t program = 0; program < programs; ++program) {")
        self.bodies.append([])
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
        body = self.bodies.pop()
        self.add(*[f"  {line}" for line in body], "}", *(["}"] if self.tiled else []))

    # -------------------------------------------------------------------------------- steps

    def _body(self, body: tuple[Op, ...]) -> None:
        for step in self.fusion.steps[id(body)]:
            _WRITERS[type(step)](self, step)
            self._made(step)
            self.written |= {id(op) for op in (step.sinks if isinstance(step, Nest) else (step,))}

    def _comment(self, op: Comment) -> None:
        self.add(f"// {op.text}")

    def _elementwise(self, op: Elementwise) -> None:
        args = [self.scalar(a) for a in op.args]
        self.declare_scalar(op.out, write_call(op.fn, args, op.out.dtype).code)

    def _cast(self, op: Cast) -> None:
        self.declare_scalar(op.out, write_cast(self.scalar(op.x), op.out.dtype).code)

    # -------------------------------------------------------------------------------- loops

    def _for(self, op: For) -> None:
        for carried in op.carried:
            self._carry(op, carried)
        variable = self.fresh(op.variable.name)
        start, stop = self.scalar(op.start).code, self.scalar(op.stop).code
        step = op.step if isinstance(op.step, int) else self.scalars[op.step].code
        self.scalars[op.variable.name] = Text(variable, op.variable.dtype)
        self.add(
            f"for (int32_t {variable} = {start}; {variable} < {stop}; {variable} += {step}) {{"
        )
        self.bodies.append([])
        self.loops_around += 1
        around = self.row, self.rows_fit, self.counting
        self.row = op.variable if isinstance(op.step, int) else None
        self.rows_fit = rows_fit(self, op)
        self.counting = {**self.counting, **rows_that_count(self, op)}
        pairs = zip(op.yields, op.carried, strict=True)
        self.yields.append({v.name: c.inner for v, c in pairs if v.axes})
        for carried in op.carried:
            if carried.inner.axes:
                pack_operands(self, carried.inner)
        self._body(op.body)
        self._carry_on(op)
        self.yields.pop()
        self.loops_around -= 1
        self.row, self.rows_fit, self.counting = around
        body = self.bodies.pop()
        self.add(*[f"  {line}" for line in body], "}")
        for carried in op.carried:
            if carried.out.axes:
                array = self.arrays[carried.inner.name]
                self.bind(carried.out, array.name, array.axes)
                pack_operands(self, carried.out)
            else:
                self.scalars[carried.out.name] = self.scalars[carried.inner.name]

    def _carry(self, op: For, carried: Carried) -> None:
        inner, initial = carried.inner, carried.initial
        if not inner.axes:
            name = self.fresh(inner.name)
            self.add(f"{SCALAR_TYPE[inner.dtype]} {name} = {self.scalar(initial).code};")
            self.scalars[inner.name] = Text(name, inner.dtype)
        elif self.is_free(initial, op):
            self.take(inner, initial)
        else:
            fill(self, self.declare(inner), initial)

    def _carry_on(self, op: For) -> None:
        """Give each carried variable its new value; all are read before any is written."""
        pending = []
        inner = {c.inner.name for c in op.carried}
        for carried, value in zip(op.carried, op.yields, strict=True):
            if not value.axes:
                name = self.fresh(f"{carried.inner.name}_next")
                self.add(f"const {SCALAR_TYPE[value.dtype]} {name} = {self.scalar(value).code};")
                pending.append(f"{self.scalars[carried.inner.name].code} = {name};")
                continue
            source, target = declared(self, value), self.arrays[carried.inner.name].name
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
                pack_operands(self, value)


_WRITERS: Mapping[type[Step], Callable[[KernelText, Any], None]] = {
    Comment: KernelText._comment,
    Elementwise: KernelText._elementwise,
    Cast: KernelText._cast,
    Nest: write_nest,
    Load: write_load,
    Store: write_store,
    Search: write_search,
    Dot: write_dot,
    Scan: write_scan,
    Combine: write_combine,
    Rename: write_rename,
    Substitute: write_substitute,
    Solve: write_solve,
    Convolve: write_convolve,
    For: KernelText._for,
}
