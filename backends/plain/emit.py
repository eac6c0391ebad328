"""A mixer as one function of plain torch, in float64: what its kernels are held against."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

from ...ir.expression import Expr, Kind, Literal, Scalar
from ...ir.mixer import Input, Mixer, Output
from ...ir.rewriting import walk
from ...ir.solving import FromAxis, FromDim, FromSizes, Source, size_sources
from ..host_text import host_text
from ..python_text import COMPARE, WORDS, Text, call, chain, infix, joined, listed, name, several
from ..reference.choice import choose
from ..statements import Statement, assigned, without_unread, written
from .forms import Statements
from .terms import DEVICE, DTYPES
from .text import Piece

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


def reference_function(mixer: Mixer) -> Reference:
    """The equations as torch code: each input by position, run-time params by keyword.

    Outputs in their declared layouts, a tuple where there are several; real ones in float64,
    whatever the inputs are. Raises UnsupportedError for a term that has no such code.
    """
    sources = size_sources(mixer)
    dims = dict.fromkeys([s.dim for s in sources])
    dims |= dict.fromkeys(dim for table in mixer.tables for dim in table.dims)
    text = Statements(mixer, dims)
    head = _Head(mixer, text)
    head.inputs()
    for stage in mixer.stages:
        text.stage(stage)
    results = [_laid_out(text, output) for output in mixer.outputs]
    text.add(several(results), "return ")
    return Reference(_function(mixer, text, head.statements(sources)), _helpers(text))


def _choose_text() -> str:
    """The function that chooses, as the reference has it, without the names of types."""
    lines = inspect.getsource(choose).splitlines()
    body = next(n for n, line in enumerate(lines) if line.endswith(":")) + 1
    return "\n".join(["def choose(score, among, rule, bound, always, slots):", *lines[body:]])


def _helpers(text: Statements) -> tuple[str, ...]:
    helpers = {"read": READ.strip(), "choose": _choose_text()}
    return tuple(helper for name, helper in helpers.items() if name in text.used)


def _function(mixer: Mixer, text: Statements, head: list[Statement]) -> str:
    given = [text.variables[i.name] for i in mixer.inputs]
    params = [p for p in mixer.params if p.runtime]
    keywords = {p.name: "None" for p in params}
    signature = call("reference", *given, *(["*"] if keywords else []), **keywords)
    docstring = f'    """{mixer.name} by plain torch in float64, as the equations say it."""'
    made = [written(signature, 0, "def ", ":"), Statement((docstring,))]
    made += without_unread([*head, *text.positions, *text.statements])
    return "\n".join(line for one in made for line in one.lines)


class _Head:
    """What comes first: sizes, params, and the inputs as pieces."""

    def __init__(self, mixer: Mixer, text: Statements) -> None:
        self.mixer, self.text = mixer, text

    def statements(self, sources: list[Source]) -> list[Statement]:
        """Statements for the device, sizes and params, each after what it reads."""
        made: dict[str, Statement] = {}
        first = next((self.text.variables[i.name] for i in self.mixer.inputs), None)
        self._assign(made, "device", name(first).then(".device") if first else Text('"cpu"'))
        for table in self.mixer.tables:
            for dim, size in zip(table.dims, table.shape, strict=True):
                self._assign(made, dim, Text(str(size)))
        for source in sources:
            if isinstance(source, FromSizes):
                self._params(made, source.value)
            if source.dim not in made:
                self._assign(made, source.dim, self._size(source))
        for param in self.mixer.params:
            self._params(made, Scalar(param.name, param.kind))
        return list(made.values())

    def _assign(self, made: dict[str, Statement], variable: str, value: Text) -> None:
        made[variable] = assigned(variable, value)

    def _params(self, made: dict[str, Statement], expr: Expr) -> None:
        """Statements for the params that an expression reads."""
        for node in walk(expr):
            if isinstance(node, Scalar) and node.name not in made:
                param = self.mixer.param(node.name)
                self._params(made, param.value)
                default = host_text(param.value, {})
                if param.runtime:
                    given = [default.at(COMPARE), name(param.name), name(param.name)]
                    default = joined("{} if {} is None else {}", given, WORDS)
                self._assign(made, param.name, default)

    def _size(self, source: Source) -> Text:
        match source:
            case FromAxis(_, entry, axis, others, power):
                size = name(self.text.variables[entry]).then(f".shape[{axis}]")
                if others:
                    product = chain("*", [name(dim) for dim in others])
                    size = infix(size, "//", call("max", product, 1))
                if power > 1:
                    size = call("round", joined(f"({{}}) ** (1 / {power})", [size]))
                return size
            case FromDim(_, other):
                return name(other)
            case FromSizes(_, value):
                return call("int", host_text(value, {}))

    def inputs(self) -> None:
        """Statements that make pieces of the inputs and tables, in float64, axes in order."""
        text = self.text
        for entry in self.mixer.inputs:
            variable = text.variables[entry.name]
            piece = self._input(entry, variable)
            if piece.code != variable:
                text.assign(variable, piece)
            text.terms.names[entry.name] = replace(piece, text=name(variable))
        for table in self.mixer.tables:
            values = listed([host_text(Literal(v), {}) for v in table.values], "[", "]")
            tensor = call("torch.tensor", values, dtype=DTYPES[table.kind], device=DEVICE)
            if len(table.shape) != 1:
                tensor = tensor.then(f".reshape({', '.join(map(str, table.shape))})")
            dims = text.order.of(table.dims)
            piece = Piece(text.order.permuted(tensor, table.dims, dims), dims, table.kind)
            text.stand_for(table.name, piece)

    def _input(self, entry: Input, variable: str) -> Piece:
        wide = {Kind.REAL: ".double()", Kind.INT: ".long()"}
        value = name(variable).then(wide.get(entry.kind, ""))
        if tuple((dim,) for dim in entry.dims) != entry.layout:
            value = value.method("reshape", *([name(dim) for dim in entry.dims] or [Text("()")]))
        dims = self.text.order.of(entry.dims)
        return Piece(self.text.order.permuted(value, entry.dims, dims), dims, entry.kind)


def _laid_out(text: Statements, output: Output) -> Text:
    """An output in its layout."""
    text.terms.lazily(output.name)
    piece = text.terms.names[output.name].of_kind(output.kind)
    piece = text.terms.expanded(piece, output.dims)
    value = text.order.permuted(piece.text, piece.dims, output.dims)
    if tuple((dim,) for dim in output.dims) == output.layout:
        return value
    sizes = [chain("*", [name(d) for d in p] or [Text("1")]) for p in output.layout]
    return value.method("reshape", *sizes)


__all__ = ["READ", "Reference", "reference_function"]
