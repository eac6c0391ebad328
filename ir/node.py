"""What the nodes of expressions are made with: kinds, places in a spec's text, and functions."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

Node = TypeVar("Node")


class Kind(enum.IntEnum):
    """The kind of a value; a larger one holds every value of a smaller one."""

    BOOL = 0
    INT = 1
    REAL = 2


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a spec's text: one-based line and column, length in characters."""

    line: int
    column: int
    length: int = 1


class At(enum.Enum):
    """Which of a name's values is meant."""

    BEFORE = "in"  # a state, as the row finds it
    AFTER = "out"  # a state, as the row leaves it
    VERSION = "version"  # what one line of a step has made of it
    ROW = "row"  # a position, or what was found at one: no axis, an integer below any length


@dataclass(frozen=True, slots=True)
class Point:
    """One of the values that a name stands for in turn."""

    of: str
    at: At


# How the kind of an elementwise call follows from the kinds of its arguments.
PREDICATES = frozenset({"lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not"})
INTEGRAL = frozenset({"floor", "ceil", "round", "sign_int", "floordiv", "mod", "to_int"})
ARITHMETIC = frozenset({"add", "sub", "mul", "neg", "abs", "min", "max", "sign", "detach"})
TRANSCENDENTAL = frozenset(
    "exp exp2 expm1 log log2 log1p sqrt rsqrt tanh sigmoid logsigmoid softplus gelu gelu_tanh "
    "silu elu erf sin cos acos logaddexp".split()
)
# Every elementwise function with its number of arguments: the closed list that backends implement.
ELEMENTWISE: Mapping[str, int] = {
    **dict.fromkeys("add sub mul div floordiv mod pow min max logaddexp".split(), 2),
    **dict.fromkeys("lt le gt ge eq ne and or".split(), 2),
    **dict.fromkeys("not neg abs sign floor ceil round relu detach".split(), 1),
    **dict.fromkeys(sorted(TRANSCENDENTAL - {"logaddexp"}), 1),
    "where": 3,
}
# And one that the language has no word for: the float32 that has the 32 bits of an int32.
AS_FLOAT = "as_float"
REDUCTIONS = ("sum", "max", "min", "prod", "any", "all")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def node(cls: type[Node]) -> type[Node]:
    """A frozen dataclass that computes its hash once: trees are looked up node by node."""
    made = dataclass(frozen=True)(cls)
    structural = made.__hash__

    def remembered(self: Node) -> int:
        found: int | None = self.__dict__.get("_hash")
        if found is None:
            found = self.__dict__["_hash"] = structural(self)
        return found

    made.__hash__ = remembered  # type: ignore[method-assign,assignment]
    return made
