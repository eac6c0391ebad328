"""The exact text form of every level: any value of the IR, written so that it reads back equal.

    value1 = Value("q_tile", DType.BFLOAT16, {"D", "I"})
    Program("causal_o", ..., body=(Load(value1, "q", ...), ...))

It is Python's syntax of calls, tuples, sets and literals, with a name for what occurs more than
once; it is parsed, never run, and makes nothing but the classes of the IR. Places in a spec's text
are left out: they are no part of a value. For people there are ``text`` and ``tile_text``; lines
that begin with ``#`` are theirs.
"""

from __future__ import annotations

import ast
import enum
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any

from . import (
    expression,
    key_ranges,
    mixer,
    node,
    normaliser,
    plan,
    promises,
    recurrence_forms,
    recurrence_tasks,
    row_loop,
    selection_tasks,
    single_assignment,
    targets,
    task,
    tile,
    transform,
)
from .errors import ArgumentError
from .expression import Index, Literal, Ref, Scalar, Size

_MODULES = (
    node,
    expression,
    mixer,
    key_ranges,
    normaliser,
    recurrence_forms,
    recurrence_tasks,
    row_loop,
    selection_tasks,
    single_assignment,
    targets,
    transform,
    task,
    tile,
    promises,
    plan,
)
# What is written out at each place, however often it occurs: shorter than a name for it.
_LEAVES = (Literal, Index, Size, Scalar, Ref, enum.Enum)
_WIDTH = 100


@cache
def _classes() -> Mapping[str, type]:
    """Every class of the IR by the name that it is written with: its module's, if two share it."""
    found = [
        value
        for module in _MODULES
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]
    count = Counter(cls.__name__ for cls in found)
    return {
        cls.__name__
        if count[cls.__name__] == 1
        else f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}": cls
        for cls in found
    }


@cache
def _names() -> Mapping[type, str]:
    return {cls: name for name, cls in _classes().items()}


# ------------------------------------------------------------------------------------ writing


def write_data(value: Any, remarks: str = "") -> str:
    """The text of a value of the IR; ``remarks`` go before it, for people."""
    writer = _Writer(value)
    notes = [f"# {line}".rstrip() for line in remarks.splitlines()]
    return "\n".join([*notes, *writer.definitions(), "\n".join(writer.lines(value)), ""])


def _kept(value: Any) -> Iterator[tuple[Field[Any], Any]]:
    """The fields that are part of a value, and its remarks."""
    for one in fields(value):
        if one.init and (one.compare or one.name in ("about", "point")):
            yield one, getattr(value, one.name)


def _is_default(one: Field[Any], value: Any) -> bool:
    return one.default is not MISSING and type(value) is type(one.default) and value == one.default


class _Writer:
    def __init__(self, value: Any) -> None:
        self.counts: Counter[tuple[type, Any]] = Counter()
        self.named: dict[tuple[type, Any], str] = {}
        self.order: list[Any] = []
        self._count(value)

    def _count(self, value: Any) -> None:
        """How often each part occurs; parts come before what they are parts of."""
        if isinstance(value, tuple | frozenset):
            for part in value:
                self._count(part)
        elif is_dataclass(value):
            key = (type(value), value)
            self.counts[key] += 1
            if self.counts[key] == 1:
                for _, part in _kept(value):
                    self._count(part)
                self.order.append(value)

    def definitions(self) -> Iterator[str]:
        """Lines that name what occurs more than once."""
        numbers: Counter[str] = Counter()
        for value in self.order:
            key = (type(value), value)
            if self.counts[key] > 1 and not isinstance(value, _LEAVES):
                stem = type(value).__name__.lower()
                numbers[stem] += 1
                lines = self.lines(value)
                self.named[key] = f"{stem}{numbers[stem]}"
                yield f"{self.named[key]} = " + "\n".join(lines)

    def lines(self, value: Any, indent: str = "") -> list[str]:
        """A value, on one line where it fits."""
        short = self.short(value)
        if len(short) + len(indent) <= _WIDTH or isinstance(value, str):
            return [short]
        inner = indent + "    "
        if isinstance(value, tuple):
            parts = [self.lines(part, inner) for part in value]
            head, tail = "(", ")"
        elif is_dataclass(value) and (type(value), value) not in self.named:
            parts = [
                [f"{label}{first}", *rest]
                for label, part in self._arguments(value)
                for first, *rest in [self.lines(part, inner)]
            ]
            head, tail = f"{_names()[type(value)]}(", ")"
        else:
            return [short]
        made = [head]
        for first, *rest in parts:
            made.append(inner + first)
            made += rest
            made[-1] += ","
        return [*made, indent + tail]

    def short(self, value: Any) -> str:
        """A value on one line."""
        match value:
            case enum.Enum():
                return f"{_names()[type(value)]}.{value.name}"
            case tuple():
                parts = ", ".join(self.short(part) for part in value)
                return f"({parts},)" if len(value) == 1 else f"({parts})"
            case frozenset():
                parts = ", ".join(sorted(self.short(part) for part in value))
                return f"{{{parts}}}" if value else "frozenset()"
            case float() if math.isinf(value) or math.isnan(value):
                return repr(value)
            case bool() | int() | float() | str() | None:
                return repr(value)
        key = (type(value), value)
        if key in self.named:
            return self.named[key]
        arguments = ", ".join(
            f"{label}{self.short(part)}" for label, part in self._arguments(value)
        )
        return f"{_names()[type(value)]}({arguments})"

    def _arguments(self, value: Any) -> Iterator[tuple[str, Any]]:
        """What a value is made from: by place, from the first default on by name."""
        by_place = True
        for one, part in _kept(value):
            if _is_default(one, part):
                by_place = False
            else:
                yield "" if by_place and not one.kw_only else f"{one.name}=", part


# ------------------------------------------------------------------------------------ reading


def read_data(text: str) -> Any:
    """The value that ``write_data`` wrote.

    Raises ArgumentError with the line where the text is something else.
    """
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise ArgumentError(f"line {line}: not the text of a mixer, a plan or a program") from error
    known: dict[str, Any] = {}
    for statement in body:
        match statement:
            case ast.Assign([ast.Name(name)], value):
                known[name] = _read(value, known)
            case ast.Expr(value) if statement is body[-1]:
                return _read(value, known)
            case _:
                raise _wrong(statement, "expected `name = value`, and a value at the end")
    raise ArgumentError("line 1: expected a value, found nothing")


def _wrong(place: ast.AST, what: str) -> ArgumentError:
    return ArgumentError(f"line {getattr(place, 'lineno', 1)}: {what}")


def _read(tree: ast.expr, known: Mapping[str, Any]) -> Any:
    match tree:
        case ast.Constant(value) if isinstance(value, bool | int | float | str | None):
            return value
        case ast.Name("inf" | "nan" as number):
            # The one that programs have: a NaN is equal to no other, as an object it is to itself.
            return math.nan if number == "nan" else math.inf
        case ast.Name(name) if name in known:
            return known[name]
        case ast.UnaryOp(ast.USub(), number):
            return -_number(number, known)
        case ast.Tuple(parts):
            return tuple(_read(part, known) for part in parts)
        case ast.Set(parts):
            return frozenset(_read(part, known) for part in parts)
        case ast.Call(ast.Name("frozenset"), [], []):
            return frozenset()
        case ast.Call(made, arguments, keywords):
            return _made(tree, _class(made), arguments, keywords, known)
        case ast.Attribute(of, name):
            cls = _class(of)
            if issubclass(cls, enum.Enum) and name in cls.__members__:
                return cls[name]
    raise _wrong(tree, f"unknown: {ast.unparse(tree)[:60]}")


def _number(tree: ast.expr, known: Mapping[str, Any]) -> int | float:
    value = _read(tree, known)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(tree, "expected a number after `-`")
    return value


def _class(tree: ast.expr) -> type:
    cls = _classes().get(ast.unparse(tree))
    if cls is None:
        raise _wrong(tree, f"no class of the IR is called {ast.unparse(tree)[:60]}")
    return cls


def _made(
    tree: ast.Call,
    cls: type,
    arguments: list[ast.expr],
    keywords: list[ast.keyword],
    known: Mapping[str, Any],
) -> Any:
    if not is_dataclass(cls):
        raise _wrong(tree, f"{cls.__name__} is not made by a call")
    by_place = [_read(argument, known) for argument in arguments]
    by_name = {str(k.arg): _read(k.value, known) for k in keywords}
    try:
        return cls(*by_place, **by_name)
    except (TypeError, ValueError) as error:
        raise _wrong(tree, str(error)) from error
