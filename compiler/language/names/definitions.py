"""Lets and macros: expressions with a name."""

from __future__ import annotations

from ....ir.expression import Expr, Read, Reduce, Ref
from ....ir.mixer import Equation
from ....ir.names import names_in
from ....ir.rewriting import walk
from ..schema import SpecDocument, Word
from ..terms.complexes import PARTS, Complex, parts, together
from ..terms.functions import FUNCTIONS
from ..terms.infer import infer
from ..text.grammar import parse, parse_target
from ..text.positions import Text
from ..text.surface import Name
from .layouts import check_axes, known_axis
from .names import check_name
from .scope import Context, Macro, Pending, Scope


def read_macros(spec: SpecDocument, scope: Scope) -> None:
    """Declare the macros.

    Raises:
        SpecError: a macro without parameters, or a name that something else has.
    """
    context = scope.context
    for key, text in spec.define.items():
        target, parameters, opening = parse_target(key.text)
        if opening != "(":
            raise key.text.error(
                "a macro needs parameters",
                allowed="`name(a, b): expression`",
                do="name an expression without parameters under `let:`",
            )
        name = check_name(key.text, target.name, context, target.span)
        if name in FUNCTIONS:
            raise context.error(target.span, f"`{name}` is a function of the language")
        if name in scope.names or name in context.macros:
            raise context.error(target.span, f"`{name}` is declared twice")
        words = [check_name(key.text, p.name, context, p.span) for p in parameters or ()]
        if len(set(words)) != len(words):
            raise context.error(target.span, "a parameter is here twice")
        context.macros[name] = Macro(name, tuple(words), parse(text), text)


class Lets:
    """Named intermediate expressions, in the order in which they need each other."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []

    def declare(self, lets: dict[Word, Text], scope: Scope) -> None:
        """Make the names known in ``scope``.

        Raises:
            SpecError: a name twice, or one that can't be declared.
        """
        for key, text in lets.items():
            target, axes, opening = parse_target(key.text)
            if opening == "(":
                raise key.text.error(
                    f"`{target.name}` has parameters", do="write macros under `define:`"
                )
            name = check_name(key.text, target.name, scope.context, target.span)
            if name in scope.names:
                raise key.text.error(f"`{name}` is declared twice", do="rename one of the two")
            scope.names[name] = Pending(_LetReader(self, target, axes, text, scope))

    def finish(self, scope: Scope) -> None:
        """Read every let of ``scope`` that nothing has read yet."""
        for binding in list(scope.names.values()):
            if isinstance(binding, Pending) and isinstance(binding.resolve, _LetReader):
                binding.resolve()

    def add(self, name: Name, value: Expr, text: Text, scope: Scope) -> Expr:
        """Keep a let, a stage's own or a part under a name that nothing else has."""
        names = [name.name + suffix for suffix in (PARTS if isinstance(value, Complex) else ("",))]
        if scope.parent is not None or len(names) > 1:
            names = [scope.context.unused(word) for word in names]
        equations = [
            Equation(word, part, flat(text) if len(names) == 1 else "", name.span)
            for word, part in zip(names, parts(value), strict=True)
        ]
        self.equations += equations
        return together(equation.ref for equation in equations)


class _LetReader:
    """Reads a let once, and gives the name as expressions see it."""

    def __init__(
        self, lets: Lets, name: Name, axes: tuple[Name, ...] | None, text: Text, scope: Scope
    ) -> None:
        self.lets, self.name, self.axes, self.text, self.scope = lets, name, axes, text, scope
        self.value: Expr | None = None

    def __call__(self) -> Expr:
        if self.value is None:
            context = self.scope.context
            value = resolve(self.name.name, self.text, self.scope, pair=True)
            check_annotation(f"`{self.name.name}`", value, self.axes, context)
            if reads_results(value, context):
                # a stage's own let over an earlier stage's result stays part of what reads it
                self.value = value
            else:
                self.value = self.lets.add(self.name, value, self.text, self.scope)
        return self.value


def reads_results(value: Expr, context: Context) -> bool:
    """Whether a value needs what a stage makes."""
    return not context.results.isdisjoint(names_in(value))


def check_annotation(
    what: str, value: Expr, axes: tuple[Name, ...] | None, context: Context
) -> None:
    """Compare a value with the axes written at its name, if any are.

    Raises:
        SpecError: other axes than the value has.
    """
    if axes is None:
        return
    declared = [known_axis(axis, context.source, context.dims.known) for axis in axes]
    span = axes[0].span if axes else None
    check_axes(what, value, declared, context.source, span, heads=context.dims.heads)


def resolve(name: str, text: Text, scope: Scope, *, pair: bool = False) -> Expr:
    """The expression of a definition; with ``pair`` it may be complex.

    Raises:
        SpecError: one that needs itself, or as reading expressions does.
    """
    context = scope.context
    open_texts = [opened for _, opened in context.resolving]
    if text in open_texts:
        cycle = [name for name, _ in context.resolving[open_texts.index(text) :]]
        raise text.error(f"`{name}` is defined by itself: {' → '.join([*cycle, name])}")
    context.resolving.append((name, text))
    try:
        value = infer(parse(text), scope)
    finally:
        context.resolving.pop()
    if isinstance(value, Complex) and not pair:
        do = "take a part of it: `real(z)` or `imag(z)`"
        raise text.error("a complex number where a real one is needed", do=do)
    return context.settle(value, text.span)


def check_host(what: str, text: Text, value: Expr) -> None:
    """A value that the host computes before any tensor is read.

    Raises:
        SpecError: one with axes, or one that reads a tensor.
    """
    allowed = "numbers, sizes and params"
    if value.axes:
        axes = ", ".join(sorted(value.axes))
        do = "name an expression with axes under `let:`"
        raise text.error(f"{what} has the axes [{axes}]", allowed=allowed, do=do)
    if any(isinstance(node, Ref | Read | Reduce) for node in walk(value)):
        raise text.error(f"{what} reads a tensor or a let", allowed=allowed)


def flat(text: Text) -> str:
    """A scalar as one line."""
    return " ".join(text.value.split())


__all__ = [
    "Lets",
    "check_annotation",
    "check_host",
    "flat",
    "read_macros",
    "reads_results",
    "resolve",
]
