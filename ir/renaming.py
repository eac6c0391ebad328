"""Data of the IR with other names, of dims or of buffers, or with other values of tiles.

Nothing else is called like a dim, or like a buffer of a plan; so a name is whatever is spelled so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from .expression import Expr
from .tile import Value


class Changed:
    """Data of the IR with its expressions changed, then names put for names wherever they stand."""

    def __init__(self, change: Callable[[Expr], Expr], names: Mapping[str, str]) -> None:
        self.change, self.names = change, names
        self._done: dict[int, tuple[Any, Any]] = {}  # each shared node once; kept, so ids stay

    def __call__(self, part: Any) -> Any:
        """``part`` changed."""
        return self._renamed(self.change(part)) if isinstance(part, Expr) else self._inside(part)

    def _inside(self, part: Any) -> Any:
        match part:
            case Expr():
                return self(part)
            case str():
                return self.names.get(part, part)
            case tuple() | frozenset():
                return type(part)(self._inside(one) for one in part)
        return _rebuilt(part, self._inside)

    def _renamed(self, part: Any) -> Any:
        """An expression, or a part of one, with the new names."""
        if isinstance(part, str):
            return self.names.get(part, part)
        if isinstance(part, tuple | frozenset):
            return type(part)(self._renamed(one) for one in part)
        if not isinstance(part, Expr):
            return _rebuilt(part, self._renamed)
        if id(part) not in self._done:
            self._done[id(part)] = part, _rebuilt(part, self._renamed)
        return self._done[id(part)][1]


def with_values(part: Any, change: Callable[[Value], Value]) -> Any:
    """An op, or a part of one, with other values wherever it has some."""
    match part:
        case Value():
            return change(part)
        case tuple():
            return tuple(with_values(one, change) for one in part)
    return _rebuilt(part, lambda inner: with_values(inner, change))


def _rebuilt(part: Any, change: Callable[[Any], Any]) -> Any:
    """A dataclass with its fields changed; anything else as it is."""
    if not is_dataclass(part) or isinstance(part, type):
        return part
    return replace(part, **{name: change(getattr(part, name)) for name in _names(part)})


def _names(part: Any) -> Iterator[str]:
    return (f.name for f in fields(part) if f.init)
