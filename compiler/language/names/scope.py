"""What names mean at a place in a spec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ....ir.errors import SpecError
from ....ir.expression import Expr, Ref, Span
from ....ir.mixer import Stage
from ..text.positions import Text
from ..text.source import Source
from ..text.surface import Node
from .dims import Dims

MAX_NODES = 10_000  # of one expression, written out as a tree
MAX_TOTAL = 20_000  # of all expressions of a spec
MAX_HEIGHT = 110  # of an expression, functions written out
MAX_LEVELS = 120  # of macros and brackets in one another


@dataclass(frozen=True)
class SpecWarning:
    """Something that is probably not meant; the spec loads. ``text`` shows it in its line."""

    message: str
    span: Span
    text: str


@dataclass(frozen=True)
class Macro:
    """``name(parameters): body``."""

    name: str
    parameters: tuple[str, ...]
    body: Node
    text: Text


@dataclass
class Pending:
    """A definition that is read when its name first is: a let, a param."""

    resolve: Callable[[], Expr]


@dataclass
class Argument:
    """What a macro's parameter stands for: an expression, or a dim, in the caller's scope."""

    node: Node
    scope: Scope
    value: Expr


@dataclass(frozen=True)
class Clash:
    """A name that two stages make."""

    stages: tuple[str, ...]


@dataclass(frozen=True)
class Barred:
    """A name that can't be read here: why, and what to do. ``value`` is what it stands for."""

    found: str
    do: str
    value: Expr | None = None


Binding = Expr | Pending | Argument | Clash | Barred


@dataclass
class Context:
    """What all scopes of one spec share."""

    source: Source
    dims: Dims
    macros: dict[str, Macro] = field(default_factory=dict)
    warnings: list[SpecWarning] = field(default_factory=list)
    expanding: list[str] = field(default_factory=list)  # macros being expanded
    resolving: list[tuple[str, Text]] = field(default_factory=list)  # definitions being read
    taken: set[str] = field(default_factory=set)  # every name of the mixer
    coming: dict[str, str] = field(default_factory=dict)  # names that stages will make, by whom
    results: set[str] = field(default_factory=set)  # names that stages make
    pending: list[Stage] = field(default_factory=list)  # stages that the next one reads
    running: dict[tuple[object, ...], Ref] = field(default_factory=dict)  # rows that stages make
    _levels: int = 0
    _total: int = 0
    _extents: dict[int, tuple[Expr, int, int]] = field(default_factory=dict)

    def error(self, span: Span | None, found: str, **more: str | None) -> SpecError:
        """An error at a place in the spec."""
        return self.source.error(span, found, **more)

    def warn(self, span: Span, message: str) -> None:
        """Keep a warning for the one who loads the spec."""
        text = str(self.source.error(span, f"warning: {message}"))
        self.warnings.append(SpecWarning(message, span, text))

    def unused(self, name: str) -> str:
        """The name, with a number where something has it already."""
        candidate, number = name, 2
        while candidate in self.taken:
            candidate, number = f"{name}_{number}", number + 1
        self.taken.add(candidate)
        return candidate

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Read something for its types alone: dims, warnings and sizes are then as before."""
        dims = self.dims
        kept = set(dims.known), dict(dims.sequences), dict(dims.sizes), dict(dims.used)
        warnings, total = len(self.warnings), self._total
        pending, running = len(self.pending), dict(self.running)
        try:
            yield
        finally:
            del self.pending[pending:]
            self.running = running
            dims.known, dims.sequences, dims.sizes, dims.used = kept
            del self.warnings[warnings:]
            self._total = total

    def enter(self, span: Span) -> None:
        """One level deeper in an expression, macros included; ``leave`` goes back."""
        if self._levels >= MAX_LEVELS:
            raise self.error(
                span, "this expression is nested too deeply", do="name parts of it under `let:`"
            )
        self._levels += 1

    def leave(self) -> None:
        """Back from ``enter``."""
        self._levels -= 1

    def weigh(self, expr: Expr, span: Span) -> Expr:
        """The expression, if it is not too large once macros and functions are written out."""
        nodes, depth = self._extent(expr)
        if nodes > MAX_NODES or depth > MAX_HEIGHT:
            limit = f"{MAX_NODES} operations" if nodes > MAX_NODES else f"{MAX_HEIGHT} levels"
            raise self.error(
                span,
                "this expression becomes too large",
                allowed=f"at most {limit}, macros and functions written out",
                do="name parts of it under `let:`",
            )
        return expr

    def settle(self, expr: Expr, span: Span) -> Expr:
        """Count a finished expression against the limit for the whole spec."""
        self._total += self._extent(expr)[0]
        if self._total > MAX_TOTAL:
            raise self.error(
                span, "the spec becomes too large", allowed=f"at most {MAX_TOTAL} operations"
            )
        return expr

    def _extent(self, expr: Expr) -> tuple[int, int]:
        """Nodes and levels of the expression as a tree; shared nodes are visited once."""
        if (known := self._extents.get(id(expr))) is not None:
            return known[1], known[2]
        below = [self._extent(child) for child in expr.children]
        nodes = 1 + sum(n for n, _ in below)
        depth = 1 + max((d for _, d in below), default=0)
        self._extents[id(expr)] = (expr, nodes, depth)
        return nodes, depth


# The derivative of a loss by a name of the step; the place is for errors.
Gradient = Callable[[Expr, str, Span], Expr]


class Scope:
    """Names and what they mean; an inner scope's hide an outer's."""

    def __init__(self, context: Context, parent: Scope | None = None) -> None:
        self.context, self.parent = context, parent
        self.names: dict[str, Binding] = {}
        self.gradient: Gradient | None = None  # in a step

    def child(self) -> Scope:
        """A scope inside this one."""
        return Scope(self.context, self)

    def find(self, name: str) -> Binding | None:
        """What ``name`` was declared to mean, if it was."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None

    def visible(self) -> list[str]:
        """Every declared name, innermost first."""
        outer = [] if self.parent is None else self.parent.visible()
        return [*self.names, *outer]

    def find_gradient(self) -> Gradient | None:
        """How derivatives are taken here; None outside a step."""
        if self.gradient is None and self.parent is not None:
            return self.parent.find_gradient()
        return self.gradient

    @property
    def outermost(self) -> Scope:
        """The top level, which macros see."""
        return self if self.parent is None else self.parent.outermost


def placed(expr: Expr, span: Span) -> Expr:
    """The expression with a place of its own."""
    return replace(expr, span=span)


__all__ = [
    "Argument",
    "Barred",
    "Binding",
    "Clash",
    "Context",
    "Macro",
    "Pending",
    "Scope",
    "SpecWarning",
    "placed",
]
