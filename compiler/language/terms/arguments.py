"""The arguments of one call in a spec, checked against the function's signature."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from ....ir.errors import SpecError
from ....ir.expression import Expr, Kind, Span
from ..names.constants import constant
from ..names.dims import Dims
from ..names.scope import Scope
from ..text.source import closest, listed
from ..text.surface import Apply, Name, Node
from .complexes import Complex, not_real
from .reading import integer_index, scope_dim


@dataclass(frozen=True)
class Function:
    """A function of the language: how it is written and how it is built."""

    signature: str
    build: Callable[[Arguments], Expr]
    least: int = 1
    most: int | None = 1  # None: any number
    keywords: frozenset[str] = frozenset()
    dims: bool = False  # takes `DIM=expression`
    complex: bool = False  # takes complex numbers


class Arguments:
    """What a function's builder sees of a call.

    Raises:
        SpecError: on construction, where number or keywords do not fit the signature.
    """

    def __init__(
        self, node: Apply, scope: Scope, function: Function, infer: Callable[[Node, Scope], Expr]
    ) -> None:
        self.node, self.scope, self.function = node, scope, function
        self._infer = infer
        count = len(node.args)
        if count < function.least or (function.most is not None and count > function.most):
            raise self.error(
                node.span,
                f"`{node.function}` with {count} argument{'s' * (count != 1)}",
                allowed=function.signature,
            )
        self.named: dict[str, Node] = {}
        self.axes: list[tuple[Name, Node]] = []
        self.fixed: dict[int, Expr] = {}
        for key, value in node.keywords:
            self._keyword(key, value)

    def _keyword(self, key: Name, value: Node) -> None:
        if key.name in self.function.keywords:
            if key.name in self.named:
                raise self.error(key.span, f"`{key.name}=` is here twice")
            self.named[key.name] = value
        elif self.function.dims and scope_dim(key, self.scope) is not None:
            self.axes.append((key, value))
        elif self.function.dims and key.name[:1].isupper():
            raise self.error(
                key.span,
                f"`{key.name}` is no dim of this spec",
                allowed=f"dims {listed(sorted(self.dims.known))}",
                do=f"give its size: `dims: {{{key.name}: …}}`",
            )
        else:
            raise self.error(
                key.span,
                f"`{self.node.function}` takes no `{key.name}=`",
                allowed=self.function.signature,
                do=closest(key.name, self.function.keywords),
            )

    @property
    def dims(self) -> Dims:
        """The spec's dims."""
        return self.scope.context.dims

    @property
    def span(self) -> Span:
        """The place of the function's name."""
        return self.node.span

    def error(self, span: Span, found: str, **more: str | None) -> SpecError:
        """An error at a place in the spec."""
        return self.scope.context.error(span, found, **more)

    def __len__(self) -> int:
        return len(self.node.args)

    def place(self, number: int) -> Span:
        """The place of an argument."""
        return self.node.args[number].span

    def value(self, number: int) -> Expr:
        """A plain argument as an expression."""
        if number in self.fixed:
            return self.fixed[number]
        value = self._infer(self.node.args[number], self.scope)
        if isinstance(value, Complex) and not self.function.complex:
            raise self.error(self.place(number), **not_real(f"`{self.node.function}`"))
        return value

    def given(self, number: int, value: Expr) -> Arguments:
        """The same call with another value for an argument."""
        same = copy.copy(self)
        same.fixed = {**self.fixed, number: value}
        return same

    def values(self, start: int = 0) -> list[Expr]:
        """The plain arguments from ``start`` on."""
        return [self.value(k) for k in range(start, len(self))]

    def is_dim(self, number: int) -> bool:
        """Whether an argument is a bare dim."""
        return number < len(self) and scope_dim(self.node.args[number], self.scope) is not None

    def dim(self, number: int) -> str:
        """An argument that must be a bare dim."""
        node = self.node.args[number]
        found = scope_dim(node, self.scope)
        if found is None:
            raise self._no_dim(node)
        return found

    def _no_dim(self, node: Node) -> SpecError:
        name = node.name if isinstance(node, Name) else ""
        known = sorted(self.dims.known)
        shown = f"`{name}`" if name else "an expression"
        indexed = self.dims.indexed(name)
        return self.error(
            node.span,
            f"{shown} where `{self.node.function}` takes a dim",
            allowed=f"{self.function.signature}; dims {listed(known)}",
            do=f"the dim is `{indexed[0]}`" if indexed else closest(name, known),
        )

    def over(self, start: int) -> tuple[str, ...]:
        """The dims from argument ``start`` on, each once."""
        found: list[str] = []
        for number in range(start, len(self)):
            dim = self.dim(number)
            if dim in found:
                raise self.error(self.place(number), f"{dim} is here twice")
            found.append(dim)
        return tuple(found)

    def where(self) -> Expr | None:
        """The condition of ``where=``."""
        if "where" not in self.named:
            return None
        node = self.named["where"]
        value = self._infer(node, self.scope)
        if value.kind is not Kind.BOOL:
            raise self.error(
                node.span, "`where=` is a number", allowed="a condition", do="compare it: `x != 0`"
            )
        return value

    def option(self, name: str) -> Expr | None:
        """A keyword's expression."""
        if name not in self.named:
            return None
        value = self._infer(self.named[name], self.scope)
        if isinstance(value, Complex):
            raise self.error(self.named[name].span, **not_real(f"`{name}=`"))
        return value

    def flag(self, name: str, number: int | None = None) -> bool:
        """A keyword, or plain argument ``number``, that must be ``true`` or ``false``."""
        node = self.named.get(name)
        if node is None and number is not None and number < len(self):
            node = self.node.args[number]
        if node is None:
            return False
        value = constant(self._infer(node, self.scope))
        if not isinstance(value, bool):
            raise self.error(node.span, f"`{name}` must be `true` or `false`")
        return value

    def indices(self) -> list[tuple[Name, Expr]]:
        """The ``DIM=index`` arguments, each checked to be an integer."""
        found = []
        for key, node in self.axes:
            index = integer_index(self._infer(node, self.scope), node.span, self.scope)
            found.append((Name(scope_dim(key, self.scope) or key.name, key.span), index))
        return found


__all__ = ["Arguments", "Function"]
