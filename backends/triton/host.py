"""The Python function of an emitted module: sizes, buffers, launches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.expression import Expr, Kind, Literal, Scalar, Size
from ...ir.mixer import Input, Layout, Mixer
from ...ir.names import free_name
from ...ir.plan import Kernel, Plan
from ...ir.rewriting import walk
from ...ir.row_loop import RowLoop
from ...ir.tile import (
    BufferArgument,
    DType,
    HostArgument,
    ParamArgument,
    Program,
    SizeArgument,
    Tile,
)
from ...ir.transform import Transform
from ..host_text import host_text
from ..python_text import COMPARE, WORDS, Text, call, chain, fill, infix, listed, name, several
from ..statements import Statement, assigned, without_unread, written
from .checks import kind_checks, shape_checks

_TORCH = {d: f"torch.{d.value}" for d in DType}


@dataclass(frozen=True, slots=True)
class TableCall:
    """A table of numbers to set, ``name``, and how it is read: ``varying`` are those that it has,
    by kernel (``kernel.BLOCK_I``); one is found by the longest of each of ``dims``.
    """

    name: str
    varying: frozenset[str]
    dims: tuple[tuple[str, ...], ...]


class HostText:
    """The writer of the function ``<mixer>(inputs, params)``.

    ``standalone``: for a file that has torch imported, and mends the interpreter. ``table``: what
    blocks and launch settings are looked up in, which are numbers without it.
    """

    def __init__(
        self,
        plan: Plan,
        wide_dots: bool = False,
        standalone: bool = False,
        table: TableCall | None = None,
    ) -> None:
        self.table = table
        self.plan = plan
        self.wide_dots = wide_dots or standalone
        self.standalone = standalone
        self.mixer: Mixer = plan.mixer
        self.names = {d: str(n) for d, n in plan.sizes}
        self.statements: list[Statement] = []
        self.derived: set[str] = set()  # sizes and params that others tell
        self._write()

    @property
    def text(self) -> str:
        """The function, whole."""
        made = without_unread(self.statements)
        return "\n".join(line for one in made for line in one.lines)

    def _as_is(self, *lines: str) -> None:
        self.statements.append(Statement(lines))

    def _add(self, value: Text, before: str = "", after: str = "") -> None:
        self.statements.append(written(value, 1, before, after))

    def _assign(self, variable: str, value: Text) -> None:
        """A variable, written down if anything reads it."""
        self.statements.append(assigned(variable, value))

    def _size(self, dim: str) -> Text:
        return name(self.names.get(dim, dim))

    def _write(self) -> None:
        self._signature()
        self._docstring()
        if not self.standalone:
            self._as_is("    import torch", "")
        self.statements.extend(kind_checks(self.plan, self.wide_dots))
        for param, value in self.plan.params:
            self._assign(param, Text(repr(value)))
        self._sizes()
        self.statements.extend(shape_checks(self.plan, self.names, self.derived))
        self._buffers()
        done = 0
        for loop, inside in self.plan.stretches:
            self._run(self.plan.kernels[done : inside.start])
            self._loop(loop, self.plan.kernels[inside.start : inside.stop])
            done = inside.stop
        self._run(self.plan.kernels[done:])
        self._results()

    def _signature(self) -> None:
        params = [p for p in self.mixer.params if p.runtime]
        keywords = {p.name: host_text(p.value, self.names) for p in params}
        names = [i.name for i in self.mixer.inputs] + (["*"] if keywords else [])
        signature = call(self.mixer.name, *names, **keywords)
        self.statements.append(written(signature, 0, "def ", ":"))

    def _docstring(self) -> None:
        given = [f"    {i.name}: {_shape(i.layout)}" for i in self.mixer.inputs]
        made = [f"{o.name}: {_shape(o.layout)}" for o in self.mixer.outputs]
        results = "\n".join(fill(["Returns " + made[0], *made[1:]], 4)).removesuffix(",")
        first = f'    """{self.mixer.name}: from tensors on one device to new ones.'
        self._as_is(first, "", *given, f"{results}.", '    """')

    # ------------------------------------------------------------------------------- sizes

    def _sizes(self) -> None:
        """Lines that find every dim's length from the shapes of the inputs."""
        params = {param for param, _ in self.plan.params}
        known = {*self.names, *params, *(p.name for p in self.mixer.params if p.runtime)}
        sequences = dict(self.mixer.sequences)
        for given in self.mixer.inputs:
            for axis, product in enumerate(given.layout):
                if len(product) == 1 and product[0] not in known:
                    self._assign(product[0], name(given.name).then(f".shape[{axis}]"))
                    known.add(product[0])
        for table in self.mixer.tables:
            for dim, size in zip(table.dims, table.shape, strict=True):
                if dim not in known:
                    self._assign(dim, Text(f"{size}"))
                    known.add(dim)
        changed = True
        while changed:
            changed = self._more_sizes(known, sequences)

    def _more_sizes(self, known: set[str], sequences: dict[str, str]) -> bool:
        for dim, sequence in sequences.items():
            for missing, partner in ((dim, sequence), (sequence, dim)):
                if missing not in known and partner in known:
                    self._assign(missing, self._size(partner))
                    known.add(missing)
                    return True
        params = [(p.name, p.value) for p in self.mixer.params]  # those that depend on sizes
        for made, value in (*self.mixer.sizes, *params):
            if made not in known and _named_in(value) <= known:
                self._assign(made, host_text(value, self.names))
                self.derived.add(made)
                known.add(made)
                return True
        for given in self.mixer.inputs:
            for axis, product in enumerate(given.layout):
                missing_dims = [d for d in product if d not in known]
                if len(missing_dims) == 1:
                    size = name(given.name).then(f".shape[{axis}]")
                    if rest := [d for d in product if d in known]:
                        others = self._product(rest)
                        if any(d in sequences for d in rest):
                            others = call("max", others, 1)  # an empty one tells nothing
                        size = infix(size, "//", others)
                    self._assign(missing_dims[0], size)
                    known.add(missing_dims[0])
                    return True
        return False

    # ----------------------------------------------------------------------------- buffers

    def _buffers(self) -> None:
        inputs = self.mixer.inputs
        device = name(inputs[0].name).then(".device") if inputs else Text('"cpu"')
        if self.table is not None:
            lengths = [self._longest(dims) for dims in self.table.dims]
            self._assign("knobs", call("tuned", self.table.name, device, *lengths))
        for count, _ in self.plan.block_counts:
            dim, program = self.plan.counted_by(count)
            block = self._block(program, program.tile(dim))
            self._assign(count, call("triton.cdiv", self._size(dim), block))
        for count, _ in self.plan.block_lengths:
            dim, program = self.plan.counted_by(count)
            self._assign(count, self._block(program, program.tile(dim)))
        for dim, size in self.plan.lengths:
            self._assign(dim, host_text(size, self.names))
        tables = {t.name: t for t in self.mixer.tables}
        for buffer in self.plan.buffers:
            dtype = _TORCH[buffer.dtype]
            match buffer.role:
                case "input" | "view":
                    continue
                case "table":
                    table = tables[buffer.name]
                    values = listed([host_text(Literal(v), {}) for v in table.values], "[", "]")
                    tensor = call("torch.tensor", values, dtype=dtype, device=device)
                    self._assign(buffer.name, tensor.then(f".reshape({list(table.shape)})"))
                case _:
                    shape = listed([self._size(dim) for dim in buffer.dims], "[", "]")
                    empty = call("torch.empty", shape, dtype=dtype, device=device)
                    self._assign(buffer.name, empty)

    # ------------------------------------------------------------------------------ launches

    def _longest(self, dims: Sequence[str]) -> Text:
        sizes = [self._size(dim) for dim in dims]
        return sizes[0] if len(sizes) == 1 else call("max", *sizes)

    def _block(self, program: Program, tile: Tile) -> Text:
        return self._number(f"{program.name}.{tile.symbol}", tile.block)

    def _number(self, key: str, value: int) -> Text:
        """A block or a launch setting: out of the table, where it has it."""
        if self.table is None or key not in self.table.varying:
            return Text(f"{value}")
        return name("knobs").then(f'["{key}"]')

    def _run(self, kernels: Sequence[Kernel], depth: int = 1) -> None:
        for kernel in kernels:
            if kernel.transform is None:
                self._launch(kernel, depth)
            else:
                self._transform(kernel.transform, depth)

    def _loop(self, loop: RowLoop, kernels: Sequence[Kernel]) -> None:
        """The kernels once for each row; the memory of states changes places after each."""
        for state in loop.states:
            self._add(name(state.start), before=f"{state.before} = ")
        taken = {b.name for b in self.plan.buffers} | {d for b in self.plan.buffers for d in b.dims}
        row, count = free_name("row", taken), self._size(loop.over)
        rows = call("range", count)
        self._add(
            call("reversed", rows) if loop.reverse else rows, before=f"for {row} in ", after=":"
        )
        for view, whole in (*loop.rows, *loop.made):
            axis = self._axis(whole, loop.over)
            value = name(whole).then(f".select({axis}, {row})")
            self.statements.append(written(value, 2, f"{view} = "))
        self._run(kernels, 2)
        for state in loop.states:
            pair = several([name(state.after), name(state.before)])
            self.statements.append(written(pair, 2, f"{state.before}, {state.after} = "))
        for state in loop.states:
            self._assign(state.end, name(state.before))

    def _axis(self, whole: str, dim: str) -> int:
        """The place of an axis in a tensor."""
        return self.plan.buffer(whole).dims.index(dim)

    def _launch(self, kernel: Kernel, depth: int = 1) -> None:
        program = kernel.program
        counts = [
            call("triton.cdiv", self._size(g.dim), self._block(program, program.tile(g.dim)))
            if g.tiled
            else self._size(g.dim)
            for g in program.grid
        ]
        within, programs = " " * 4 * (depth - 1), chain("*", counts or [Text("1")])
        self.statements.append(assigned("programs", programs, depth))
        self.statements.append(written(name("programs"), depth, "if ", " > 0:"))
        arguments = self._arguments(program)
        reads = frozenset[str]().union(*(argument.reads for argument in arguments))
        lines = [f"{within}        {program.name}_kernel[(programs,)]("]
        codes = [argument.code for argument in arguments]
        lines += [*fill(codes, 12 + len(within)), f"{within}        )"]
        self.statements.append(Statement(tuple(lines), reads))

    def _transform(self, op: Transform, depth: int = 1) -> None:
        """The call of a transform, on tensors whose axes are in one order."""
        order = op.order(self.plan.buffer(op.results[0]).dims)
        operands, parts = op.places(order, lambda name: self.plan.buffer(name).dims)
        given = [self._view(*operand) for operand in operands]
        made = [Text("None") if part is None else self._view(*part) for part in parts]
        imaginary = given[1] if len(given) > 1 else Text("None")
        axes = Text(repr(op.axis_signs(order)))
        value = call("fourier", given[0], imaginary, listed(made), axes)
        self.statements.append(written(value, depth))

    def _view(self, buffer: str, places: list[int]) -> Text:
        """A tensor with an axis for each dim of a buffer, in another order."""
        text, dims = name(buffer), self.plan.buffer(buffer).dims
        layouts = {entry.name: entry.layout for entry in self.mixer.inputs}
        if layouts.get(buffer, tuple((dim,) for dim in dims)) != tuple((dim,) for dim in dims):
            text = text.method("reshape", listed([self._size(dim) for dim in dims], "[", "]"))
        return text if places == sorted(places) else text.method("permute", *places)

    def _arguments(self, program: Program) -> list[Text]:
        arguments = [name(buffer.name) for buffer in program.buffers.values()]
        for buffer in program.buffers.values():
            arguments.extend(self._strides(buffer))
        for argument in program.arguments:
            match argument:
                case SizeArgument(dim):
                    arguments.append(self._size(dim))
                case HostArgument(_, _, value) if not argument.fixed:
                    arguments.append(host_text(value, self.names).at(COMPARE))
                case _:
                    pass
        params = [a for a in program.arguments if isinstance(a, ParamArgument)]
        flags = {p.name for p in self.mixer.params if p.kind is Kind.BOOL}
        for param in params:
            if param.runtime:
                given = self._size(param.name)
                arguments.append(call("int", given) if param.name in flags else given)
        fixed = {p.name: self._size(p.name) for p in params if not p.runtime}
        hosts = [a for a in program.arguments if isinstance(a, HostArgument) and a.fixed]
        fixed |= {a.name: host_text(a.value, self.names).at(COMPARE) for a in hosts}
        fixed |= {tile.symbol: self._block(program, tile) for tile in program.blocks}
        fixed |= {k: self._number(f"{program.name}.{k}", n) for k, n in program.launch}
        # a * b + c in one rounding, as the report has it
        fixed["enable_fp_fusion"] = Text("True")
        return arguments + [value.behind(f"{key}=", WORDS) for key, value in fixed.items()]

    def _strides(self, buffer: BufferArgument) -> list[Text]:
        given = next((i for i in self.mixer.inputs if i.name == buffer.name), None)
        if given is None:
            whole = name(buffer.name)
            return [whole.then(f".stride({n})") for n in range(len(buffer.dims))]
        return [self._stride(given, dim) for dim in buffer.dims]

    def _stride(self, given: Input, dim: str) -> Text:
        for axis, product in enumerate(given.layout):
            if dim in product:
                inner = product[product.index(dim) + 1 :]
                stride = name(given.name).then(f".stride({axis})")
                return chain("*", [stride, *(self._size(d) for d in inner)])
        raise KeyError(dim)

    def _product(self, dims: Sequence[str]) -> Text:
        return chain("*", [self._size(dim) for dim in dims] or [Text("1")])

    # ------------------------------------------------------------------------------- results

    def _results(self) -> None:
        made = []
        for output in self.mixer.outputs:
            text = name(output.name)
            if tuple((d,) for d in self.plan.buffer(output.name).dims) != output.layout:
                shape = listed([self._product(product) for product in output.layout], "[", "]")
                text = text.method("reshape", shape)
            made.append(text)
        self._add(several(made), before="return ")


def _named_in(expr: Expr) -> set[str]:
    """The sizes and params that a number is made of."""
    dims = {n.dim for n in walk(expr) if isinstance(n, Size)}
    return dims | {n.name for n in walk(expr) if isinstance(n, Scalar)}


def _shape(layout: Layout) -> str:
    return "[" + ", ".join("*".join(p) or "1" for p in layout) + "]"
