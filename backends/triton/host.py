"""The Python function of an emitted module: sizes, buffers, launches."""

from __future__ import annotations

from typing import Protocol

from ...ir.expression import Call, Expr, Kind, Literal, Scalar, Size
from ...ir.mixer import Input, Layout, Mixer
from ...ir.plan import Buffer, Kernel, Plan
from ...ir.rewriting import walk
from ...ir.tile import BufferArgument, DType, HostArgument, ParamArgument, SizeArgument, Tile
from ..python_text import fill
from ..statements import Spellings, Statement, without_unread
from .checks import kind_checks, shape_checks
from .lines import wrap

_INFIX = {
    "add": ("+", 1),
    "sub": ("-", 1),
    "mul": ("*", 2),
    "div": ("/", 2),
    "floordiv": ("//", 2),
    "mod": ("%", 2),
    "lt": ("<", 0),
    "le": ("<=", 0),
    "gt": (">", 0),
    "ge": (">=", 0),
    "eq": ("==", 0),
    "ne": ("!=", 0),
}
_MATH = frozenset("exp exp2 expm1 log log2 log1p sqrt tanh sin cos acos erf floor ceil".split())
_BUILTIN = frozenset({"min", "max", "abs", "round"})
# What neither Python nor its math module has, in a variable-like text that may be repeated.
_WRITTEN = {
    "relu": "max({0}, 0)",
    "sign": "(({0} > 0) - ({0} < 0))",
    "detach": "{0}",
    "sigmoid": "(1 / (1 + math.exp(-{0})))",
    "logsigmoid": "(min({0}, 0) - math.log1p(math.exp(-abs({0}))))",
    "softplus": "(max({0}, 0) + math.log1p(math.exp(-abs({0}))))",
    "silu": "({0} / (1 + math.exp(-{0})))",
    "gelu": "(0.5 * {0} * (1 + math.erf({0} * 0.5**0.5)))",
    "gelu_tanh": "({0} / (1 + math.exp(-1.5957691216057308 * ({0} + 0.044715 * {0}**3))))",
    "elu": "({0} if {0} > 0 else math.expm1({0}))",
    "logaddexp": "(max({0}, {1}) + math.log1p(math.exp(-abs({0} - {1}))))",
}
_TORCH = {d: f"torch.{d.value}" for d in DType}


class Names(Protocol):
    """How an expression's names are spelled: a dict, or one that tells what was asked for."""

    def get(self, name: str, other: str, /) -> str:
        """The spelling of ``name``, else ``other``."""
        ...


def host_text(expr: Expr, names: Names, level: int = 0) -> str:
    """An expression in sizes and params as Python."""
    match expr:
        case Literal(value):
            if value in (float("inf"), float("-inf")):
                return f'float("{value}")'
            return f"({value!r})" if level > 2 and value < 0 else repr(value)
        case Size(dim):
            return names.get(dim, dim)
        case Scalar(name):
            return names.get(name, name)
        case Call("pow", (a, b)):
            text = f"{host_text(a, names, 4)} ** {host_text(b, names, 4)}"
            return f"({text})" if level > 3 else text
        case Call("neg", (a,)):
            text = f"-{host_text(a, names, 3)}"
            return f"({text})" if level > 2 else text
        case Call("where", (c, a, b)):
            a_text, c_text, b_text = (host_text(x, names) for x in (a, c, b))
            return f"({a_text} if {c_text} else {b_text})"
        case Call("rsqrt", (a,)):
            text = f"{host_text(a, names, 4)} ** -0.5"
            return f"({text})" if level > 3 else text
        case Call("and" | "or", (a, b)):
            return f"({host_text(a, names, 1)} {expr.fn} {host_text(b, names, 1)})"
        case Call("not", (a,)):
            return f"(not {host_text(a, names, 1)})"
        case Call(fn, args) if fn in _INFIX:
            sign, own = _INFIX[fn]
            left, right = host_text(args[0], names, own), host_text(args[1], names, own + 1)
            text = f"{left} {sign} {right}"
            return f"({text})" if own < level else text
        case Call(fn, args):
            if fn in _WRITTEN:
                return _WRITTEN[fn].format(*(host_text(a, names, 4) for a in args))
            assert fn in _MATH | _BUILTIN, fn
            inner = ", ".join(host_text(a, names) for a in args)
            return f"math.{fn}({inner})" if fn in _MATH else f"{fn}({inner})"
    raise TypeError(f"not an expression in sizes and params: {expr}")


class HostText:
    """The writer of the function ``<mixer>(inputs, params)``.

    ``standalone``: for a file that has torch imported, and mends the interpreter.
    """

    def __init__(self, plan: Plan, wide_dots: bool = False, standalone: bool = False) -> None:
        self.plan = plan
        self.wide_dots = wide_dots or standalone
        self.standalone = standalone
        self.mixer: Mixer = plan.mixer
        self.fixed = dict(plan.sizes)
        self.names = Spellings({d: str(n) for d, n in plan.sizes})
        self.numbers: list[Statement] = []
        self.lines: list[str] = []
        self._write()

    @property
    def text(self) -> str:
        """The function, whole."""
        return "\n".join(self.lines)

    def _add(self, text: str, depth: int = 1) -> None:
        self.lines.extend("    " * depth + line for line in wrap(text, 4 * depth))

    def _write(self) -> None:
        mixer = self.mixer
        names = [i.name for i in mixer.inputs]
        params = [p for p in mixer.params if p.runtime]
        keywords = [f"{p.name}={host_text(p.value, self.names)}" for p in params]
        signature = ", ".join([*names, *(["*", *keywords] if keywords else [])])
        self.lines.extend(wrap(f"def {mixer.name}({signature}):", 0))
        self._docstring()
        if not self.standalone:
            self._add("import torch")
            self.lines.append("")
        self.lines.extend(f"    {line}" for line in kind_checks(self.plan, self.wide_dots))
        head, self.lines = self.lines, []
        self.names.asked()
        for name, value in self.plan.params:
            self._number(name, repr(value))
        self._sizes()
        for line in shape_checks(self.plan, self.names):
            self._add(line.lstrip(), 2 if line.startswith(" ") else 1)
        self._buffers()
        for kernel in self.plan.kernels:
            self._launch(kernel)
        self._results()
        body, self.lines = self.lines, head
        for number in without_unread(self.numbers, self.names.asked()):
            self.lines.extend(number.lines)
        self.lines += body

    def _number(self, name: str, code: str) -> None:
        """A size or a param, written down if anything reads it."""
        lines = tuple(f"    {line}" for line in wrap(f"{name} = {code}", 4))
        self.numbers.append(Statement(lines, self.names.asked(), name))

    def _docstring(self) -> None:
        shapes = [f"{i.name}: {_shape(i.layout)}" for i in self.mixer.inputs]
        made = [f"{o.name}: {_shape(o.layout)}" for o in self.mixer.outputs]
        self._add('"""' + f"{self.mixer.name}: from tensors on one device to new ones.")
        self.lines.append("")
        for line in shapes:
            self._add(line)
        self._add("Returns " + ", ".join(made) + ".")
        self._add('"""')

    # ------------------------------------------------------------------------------- sizes

    def _sizes(self) -> None:
        """Lines that find every dim's length from the shapes of the inputs."""
        params = {name for name, _ in self.plan.params}
        known = {*self.fixed, *params, *(p.name for p in self.mixer.params if p.runtime)}
        sequences = dict(self.mixer.sequences)
        for given in self.mixer.inputs:
            for axis, product in enumerate(given.layout):
                if len(product) == 1 and product[0] not in known:
                    self._number(product[0], f"{given.name}.shape[{axis}]")
                    known.add(product[0])
        for table in self.mixer.tables:
            for dim, size in zip(table.dims, table.shape, strict=True):
                if dim not in known:
                    self._number(dim, f"{size}")
                    known.add(dim)
        changed = True
        while changed:
            changed = self._more_sizes(known, sequences)

    def _more_sizes(self, known: set[str], sequences: dict[str, str]) -> bool:
        for dim, sequence in sequences.items():
            for missing, partner in ((dim, sequence), (sequence, dim)):
                if missing not in known and partner in known:
                    self._number(missing, self.names.get(partner, partner))
                    known.add(missing)
                    return True
        params = [(p.name, p.value) for p in self.mixer.params]  # those that depend on sizes
        for name, value in (*self.mixer.sizes, *params):
            if name not in known and _named_in(value) <= known:
                self._number(name, host_text(value, self.names))
                known.add(name)
                return True
        for given in self.mixer.inputs:
            for axis, product in enumerate(given.layout):
                missing_dims = [d for d in product if d not in known]
                if len(missing_dims) == 1:
                    rest = [self.names.get(d, d) for d in product if d in known]
                    product_text = " * ".join(rest)
                    divisor = f" // {product_text}" if len(rest) == 1 else f" // ({product_text})"
                    if any(d in sequences for d in product if d in known):
                        divisor = f" // max({product_text}, 1)"  # an empty one tells nothing
                    divisor = divisor if rest else ""
                    self._number(missing_dims[0], f"{given.name}.shape[{axis}]{divisor}")
                    known.add(missing_dims[0])
                    return True
        return False

    # ----------------------------------------------------------------------------- buffers

    def _buffers(self) -> None:
        for name, _ in self.plan.block_counts:
            dim, block = self.plan.block_count(name)
            self._add(f"{name} = triton.cdiv({self.names.get(dim, dim)}, {block})")
        for dim, size in self.plan.lengths:
            self._add(f"{dim} = {host_text(size, self.names)}")
        first = self.mixer.inputs[0].name if self.mixer.inputs else None
        device = f"{first}.device" if first else '"cpu"'
        tables = {t.name: t for t in self.mixer.tables}
        for buffer in self.plan.buffers:
            dtype = _TORCH[buffer.dtype]
            match buffer.role:
                case "input":
                    continue
                case "table":
                    table = tables[buffer.name]
                    values = f"torch.tensor({list(table.values)}, dtype={dtype}, device={device})"
                    self._add(f"{buffer.name} = {values}.reshape({list(table.shape)})")
                case _:
                    shape = ", ".join(self.names.get(d, d) for d in buffer.dims)
                    self._add(
                        f"{buffer.name} = torch.empty([{shape}], dtype={dtype}, device={device})"
                    )

    # ------------------------------------------------------------------------------ launches

    def _launch(self, kernel: Kernel) -> None:
        program = kernel.program
        counts = [
            f"triton.cdiv({self.names.get(g.dim, g.dim)}, {program.tile(g.dim).block})"
            if g.tiled
            else self.names.get(g.dim, g.dim)
            for g in program.grid
        ]
        self._add(f"programs = {' * '.join(counts) or '1'}")
        self._add("if programs > 0:")
        arguments = [b.name for b in program.buffers.values()]
        for buffer in program.buffers.values():
            arguments.extend(self._strides(buffer))
        for argument in program.arguments:
            match argument:
                case SizeArgument(dim):
                    arguments.append(self.names.get(dim, dim))
                case HostArgument(_, _, value) if not argument.fixed:
                    arguments.append(host_text(value, self.names))
                case _:
                    pass
        params = [a for a in program.arguments if isinstance(a, ParamArgument)]
        flags = {p.name for p in self.mixer.params if p.kind is Kind.BOOL}
        runtime = [self.names.get(p.name, p.name) for p in params if p.runtime]
        arguments.extend(f"int({name})" if name in flags else name for name in runtime)
        fixed = [p.name for p in params if not p.runtime]
        arguments.extend(f"{name}={self.names.get(name, name)}" for name in fixed)
        hosts = [a for a in program.arguments if isinstance(a, HostArgument) and a.fixed]
        arguments.extend(f"{a.name}={host_text(a.value, self.names)}" for a in hosts)
        arguments.extend(_block(t) for t in program.blocks)
        arguments.extend(f"{name}={value}" for name, value in program.launch)
        arguments.append("enable_fp_fusion=True")  # a * b + c in one rounding, as the report has it
        self._add(f"{program.name}_kernel[(programs,)](", 2)
        self.lines.extend(fill(arguments, 12))
        self._add(")", 2)

    def _strides(self, buffer: BufferArgument) -> list[str]:
        given = next((i for i in self.mixer.inputs if i.name == buffer.name), None)
        if given is None:
            return [f"{buffer.name}.stride({n})" for n in range(len(buffer.dims))]
        return [self._stride(given, dim) for dim in buffer.dims]

    def _stride(self, given: Input, dim: str) -> str:
        for axis, product in enumerate(given.layout):
            if dim in product:
                inner = product[product.index(dim) + 1 :]
                factors = [self.names.get(d, d) for d in inner]
                return " * ".join([f"{given.name}.stride({axis})", *factors])
        raise KeyError(dim)

    # ------------------------------------------------------------------------------- results

    def _results(self) -> None:
        made = []
        for output in self.mixer.outputs:
            buffer: Buffer = self.plan.buffer(output.name)
            text = output.name
            if tuple((d,) for d in buffer.dims) != output.layout:
                shape = ", ".join(
                    " * ".join(self.names.get(d, d) for d in product) or "1"
                    for product in output.layout
                )
                text = f"{output.name}.reshape([{shape}])"
            made.append(text)
        self._add("return " + ", ".join(made))


def _named_in(expr: Expr) -> set[str]:
    """The sizes and params that a number is made of."""
    dims = {n.dim for n in walk(expr) if isinstance(n, Size)}
    return dims | {n.name for n in walk(expr) if isinstance(n, Scalar)}


def _shape(layout: Layout) -> str:
    return "[" + ", ".join("*".join(p) or "1" for p in layout) + "]"


def _block(tile: Tile) -> str:
    return f"{tile.symbol}={tile.block}"
