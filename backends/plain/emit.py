"""A mixer as one function of plain torch, in float64: what its kernels are held against."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from ...ir.expression import Expr, Kind, Scalar
from ...ir.mixer import Input, Mixer, Output
from ...ir.rewriting import walk
from ...ir.solving import FromAxis, FromDim, FromSizes, Source, size_sources
from ..reference.choice import choose
from ..statements import Statement, without_unread
from ..triton.host import host_text
from ..triton.lines import wrap
from .forms import Statements
from .terms import DTYPES
from .text import Piece, bare

READ = '''
def read(table, places, fill):
    """The table at positions along its first axes; ``fill`` where one lies outside."""
    inside = torch.ones((), dtype=torch.bool, device=table.device)
    for place, size in zip(places, table.shape, strict=False):
        inside = inside & (place >= 0) & (place < size)
    places = [p.clamp(0, size - 1) for p, size in zip(places, table.shape, strict=False)]
    found = table[tuple(places)]
    inside = inside[(...,) + (None,) * (found.ndim - inside.ndim)]
    return torch.where(inside, found, torch.tensor(fill, device=table.device).to(table.dtype))
'''


@dataclass(frozen=True)
class Reference:
    """The function, and the helpers that it calls."""

    text: str
    helpers: tuple[str, ...] = ()


def reference_function(mixer: Mixer, name: str = "reference") -> Reference:
    """The equations as torch code: each input by position, run-time params by keyword.

    Outputs in their declared layouts, a tuple where there are several; real ones in float64,
    whatever the inputs are. Raises UnsupportedError for a term that has no such code.
    """
    sources = size_sources(mixer)
    dims = dict.fromkeys([s.dim for s in sources])
    dims |= dict.fromkeys(dim for table in mixer.tables for dim in table.dims)
    text = Statements(mixer, {dim: dim for dim in dims})
    head = _Head(mixer, text)
    head.inputs()
    for stage in mixer.stages:
        text.stage(stage)
    results = [_laid_out(text, output) for output in mixer.outputs]
    text.add(f"return {', '.join(results)}")
    return Reference(_function(name, mixer, text, head.statements(sources)), _helpers(text))


def _choose_text() -> str:
    """The function that chooses, as the reference has it, without the names of types."""
    lines = inspect.getsource(choose).splitlines()
    body = next(n for n, line in enumerate(lines) if line.endswith(":")) + 1
    return "\n".join(["def choose(score, among, rule, bound, always, slots):", *lines[body:]])


def _helpers(text: Statements) -> tuple[str, ...]:
    helpers = {"read": READ.strip(), "choose": _choose_text()}
    return tuple(helper for name, helper in helpers.items() if name in text.used)


def _function(name: str, mixer: Mixer, text: Statements, head: list[Statement]) -> str:
    given = [text.variables[i.name] for i in mixer.inputs]
    params = [p for p in mixer.params if p.runtime]
    keywords = [f"{p.name}=None" for p in params]
    signature = ", ".join([*given, *(["*", *keywords] if keywords else [])])
    lines = wrap(f"def {name}({signature}):", 0)
    lines.append(f'    """{mixer.name} by plain torch in float64, as the equations say it."""')
    for statement in without_unread([*head, *text.positions, *text.statements]):
        lines.extend(statement.lines)
    return re.sub(r"(?<![\w.])([\w.]+) \*\* ([\w.]+)(?![\w.([])", r"\1**\2", "\n".join(lines))


class _Head:
    """What comes first: sizes, params, and the inputs as pieces."""

    def __init__(self, mixer: Mixer, text: Statements) -> None:
        self.mixer, self.text = mixer, text

    def statements(self, sources: list[Source]) -> list[Statement]:
        """Statements for the device, sizes and params, each after what it reads."""
        made: dict[str, Statement] = {}
        first = next((self.text.variables[i.name] for i in self.mixer.inputs), None)
        self._assign(made, "device", f"{first}.device" if first else '"cpu"')
        for table in self.mixer.tables:
            for dim, size in zip(table.dims, table.shape, strict=True):
                self._assign(made, dim, str(size))
        for source in sources:
            if isinstance(source, FromSizes):
                self._params(made, source.value)
            if source.dim not in made:
                self._assign(made, source.dim, self._size(source))
        for param in self.mixer.params:
            self._params(made, Scalar(param.name, param.kind))
        return list(made.values())

    def _assign(self, made: dict[str, Statement], name: str, code: str) -> None:
        lines = tuple(f"    {line}" for line in wrap(f"{name} = {code}", 4))
        made[name] = Statement(lines, self.text.sizes.asked(), name)

    def _params(self, made: dict[str, Statement], expr: Expr) -> None:
        """Statements for the params that an expression reads."""
        for node in walk(expr):
            if isinstance(node, Scalar) and node.name not in made:
                param = self.mixer.param(node.name)
                self._params(made, param.value)
                default = host_text(param.value, self.text.sizes)
                if param.runtime:
                    default = f"{default} if {param.name} is None else {param.name}"
                self._assign(made, param.name, bare(default))

    def _size(self, source: Source) -> str:
        spelled = self.text.sizes
        match source:
            case FromAxis(_, name, axis, others, power):
                code = f"{self.text.variables[name]}.shape[{axis}]"
                if others:
                    product = " * ".join(spelled.get(dim, dim) for dim in others)
                    code += f" // max({product}, 1)"
                if power > 1:
                    code = f"round(({code}) ** (1 / {power}))"
                return code
            case FromDim(_, other):
                return spelled.get(other, other)
            case FromSizes(_, value):
                return f"int({host_text(value, spelled)})"

    def inputs(self) -> None:
        """Statements that make pieces of the inputs and tables, in float64, axes in order."""
        text = self.text
        for entry in self.mixer.inputs:
            variable = text.variables[entry.name]
            piece = self._input(entry, variable)
            if piece.code != variable:
                text.assign(variable, piece, entry.name)
            text.terms.names[entry.name] = Piece(variable, piece.dims, piece.kind)
        for table in self.mixer.tables:
            values = ", ".join(repr(v) for v in table.values)
            code = (
                f"torch.tensor([{values}], dtype={DTYPES[table.kind]}, device={text.terms.device})"
            )
            if len(table.shape) != 1:
                code += f".reshape({', '.join(map(str, table.shape))})"
            dims = text.order.of(table.dims)
            piece = Piece(text.order.permuted(code, table.dims, dims), dims, table.kind)
            text.terms.names[table.name] = text.assign(
                text.variables[table.name], piece, table.name
            )

    def _input(self, entry: Input, variable: str) -> Piece:
        code = variable
        if entry.kind is Kind.REAL:
            code += ".double()"
        elif entry.kind is Kind.INT:
            code += ".long()"
        if tuple((dim,) for dim in entry.dims) != entry.layout:
            spelled = self.text.sizes
            code += f".reshape({', '.join(spelled.get(dim, dim) for dim in entry.dims) or '()'})"
        dims = self.text.order.of(entry.dims)
        return Piece(self.text.order.permuted(code, entry.dims, dims), dims, entry.kind)


def _laid_out(text: Statements, output: Output) -> str:
    """An output in its layout."""
    text.terms.lazily(output.name)
    piece = text.terms.names[output.name].of_kind(output.kind)
    piece = text.terms.expanded(piece, output.dims)
    code = text.order.permuted(piece.code, piece.dims, output.dims)
    if tuple((dim,) for dim in output.dims) == output.layout:
        return code
    sizes = text.sizes
    shape = ", ".join(
        " * ".join(sizes.get(dim, dim) for dim in product) or "1" for product in output.layout
    )
    return f"{code}.reshape({shape})"


__all__ = ["READ", "Reference", "reference_function"]
