"""Python made once for a mixer, so that a call of any length takes no symbolic work.

The sizes of a call are read off its tensors' shapes, and numbers for the kernels computed from
sizes, by straight code that the equations were turned into.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..ir.binding import Number, bind_sizes, check_params
from ..ir.expression import Expr, Kind, Scalar
from ..ir.host import FUNCTIONS, host_code
from ..ir.mixer import Mixer
from ..ir.optional import free_dims
from ..ir.rewriting import walk
from ..ir.solving import FromAxis, FromDim, FromSizes, Source, size_sources

# What code that was made here raises where the checked way has to say what is wrong.
NO_ANSWER = (ArithmeticError, ValueError, IndexError)


def compiled(arguments: Iterable[str], lines: Iterable[str], known: Mapping[str, Any]) -> Any:
    """The function of some lines; ``known``: the names that they read beside the arguments."""
    body = "\n".join(f"  {line}" for line in lines)
    namespace = {"FUNCTIONS": FUNCTIONS, **known}
    exec(f"def made({', '.join(arguments)}):\n{body}\n", namespace)
    return namespace["made"]


class HostLines:
    """Lines that compute numbers from sizes and params."""

    def __init__(self, mixer: Mixer, sizes: Mapping[str, str], given: Collection[str] = ()) -> None:
        """``sizes``: how the lines name dims; ``given``: params that come as arguments."""
        self.mixer = mixer
        self.names = dict(sizes)
        self.lines: list[str] = []
        self.arguments = [f"p{n}" for n in range(len(given))]
        self._params = dict(zip(given, self.arguments, strict=True))

    def code(self, expr: Expr) -> str:
        """The expression; the params that it reads are computed in lines before."""
        for node in walk(expr):
            if isinstance(node, Scalar):
                self.param(node.name)
        return host_code(expr, {**self.names, **self._params})

    def param(self, name: str) -> str:
        """The variable of a param: as given, else its default."""
        if name not in self._params:
            param = self.mixer.param(name)
            code = self.code(param.value)
            self._params[name] = f"d{len(self._params)}"
            real = param.kind is Kind.REAL
            self.lines.append(f"{self._params[name]} = {f'float({code})' if real else code}")
        return self._params[name]


@dataclass(frozen=True)
class SizeReader:
    """The sizes of calls on tensors for ``inputs``, in the order of ``dims``."""

    mixer: Mixer
    inputs: tuple[str, ...]
    dims: tuple[str, ...]
    code: Callable[..., tuple[int, ...] | None]

    def read(self, tensors: tuple[Tensor, ...]) -> tuple[int, ...] | None:
        """The sizes; None where the shapes don't fit or leave one open."""
        try:
            return self.code(*tensors)
        except NO_ANSWER:
            return None

    def solve(
        self, tensors: tuple[Tensor, ...], params: Mapping[str, Number] = {}
    ) -> tuple[int, ...]:
        """The sizes; ArgumentError where the shapes don't fit."""
        found = self.read(tensors)
        if found is not None:
            return found
        shapes = {n: tuple(t.shape) for n, t in zip(self.inputs, tensors, strict=True)}
        sizes = bind_sizes(self.mixer, shapes, params)
        return tuple(sizes[dim] for dim in self.dims)


def size_reader(mixer: Mixer, inputs: tuple[str, ...], given: Collection[str] = ()) -> SizeReader:
    """How to read the sizes off tensors for ``inputs``, all that the mixer has: what ``bind_sizes``
    finds for shapes that it admits. There is no answer where sizes depend on a ``given`` param.
    """
    sources = size_sources(mixer)
    tables = {d: n for t in mixer.tables for d, n in zip(t.dims, t.shape, strict=True)}
    found = {source.dim for source in sources}
    dims = (*(s.dim for s in sources), *(dim for dim in tables if dim not in found))
    text = _Reading(mixer, {name: f"s{n}" for n, name in enumerate(inputs)}, dims)
    whole = free_dims(mixer) <= set(dims)
    arguments = [f"x{n}" for n in range(len(inputs))]
    text.lines.extend(f"s{n} = x{n}.shape" for n in range(len(inputs)))
    for source in sources:
        text.solve(source)
    text.lines.extend(f"{text.names[d]} = {n}" for d, n in tables.items() if d not in found)
    if not whole or not text.check(sources).isdisjoint(given):
        return SizeReader(mixer, inputs, dims, lambda *_: None)
    text.lines.append(f"return ({''.join(f'{text.names[dim]}, ' for dim in dims)})")
    return SizeReader(mixer, inputs, dims, compiled(arguments, text.lines, {}))


class _Reading(HostLines):
    """The lines of a reader."""

    def __init__(self, mixer: Mixer, shapes: Mapping[str, str], dims: tuple[str, ...]) -> None:
        super().__init__(mixer, {dim: f"n{place}" for place, dim in enumerate(dims)})
        self.shapes = shapes

    def solve(self, source: Source) -> None:
        own = self.names[source.dim]
        match source:
            case FromAxis(_, name, axis, others, power):
                text = f"{self.shapes[name]}[{axis}]"
                if others:
                    text += f" // ({self._product(others)})"
                if power > 1:
                    text = f"round(({text}) ** (1 / {power}))"
            case FromDim(_, other):
                text = self.names[other]
            case FromSizes(_, value):
                text = f"int({self.code(value)})"
        self.lines.append(f"{own} = {text}")
        if isinstance(source, FromSizes):
            self._refuse(f"{own} < 0")

    def check(self, sources: list[Source]) -> set[str]:
        """Lines that compare what was found with every axis; the params that sizes depend on."""
        for given in self.mixer.inputs:
            shape = "".join(f"{self._product(product)}, " for product in given.layout)
            self._refuse(f"{self.shapes[given.name]} != ({shape})")
        derived = {source.dim for source in sources if isinstance(source, FromSizes)}
        for dim, value in self.mixer.sizes:
            if dim in self.names and dim not in derived:
                self._refuse(f"{self.names[dim]} != int({self.code(value)})")
        for small, large in self.mixer.heads:
            if small in self.names and large in self.names:
                groups, heads = self.names[small], self.names[large]
                self._refuse(f"({heads} % {groups} if {groups} else {heads})")
        return set(self._params)

    def _refuse(self, condition: str) -> None:
        self.lines.append(f"if {condition}: return None")

    def _product(self, dims: Iterable[str]) -> str:
        return " * ".join(self.names[dim] for dim in dims) or "1"


def numbers_of(
    mixer: Mixer,
    dims: tuple[str, ...],
    values: Iterable[Expr],
    given: tuple[str, ...] = (),
    more: Mapping[str, str] = {},
) -> Callable[..., tuple[Number, ...]]:
    """A function of (sizes, the params ``given``): the values of expressions, as ``evaluate_host``
    has them, or an error of NO_ANSWER. ``more``: code of dims that are not among the sizes.
    """
    lines = HostLines(mixer, {**{dim: f"n{n}" for n, dim in enumerate(dims)}, **more}, given)
    texts = [lines.code(value) for value in values]
    unpacked = f"({''.join(f'n{n}, ' for n in range(len(dims)))}) = sizes"
    body = [unpacked, *lines.lines, f"return ({''.join(f'{text}, ' for text in texts)})"]
    made: Callable[..., tuple[Number, ...]] = compiled(["sizes", *lines.arguments], body, {})
    return made


def checked_params(mixer: Mixer, params: Mapping[str, Number]) -> tuple[Number, ...]:
    """The values of params that a call gives, as their kinds have them."""
    check_params(mixer, params)
    kinds = {name: mixer.param(name).kind for name in params}
    return tuple(float(v) if kinds[n] is Kind.REAL else v for n, v in params.items())
