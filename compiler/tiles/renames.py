"""Which values are others with their one axis under another name.

A chunk has its rows on the tile twice. What is computed of them along the second axis is computed
along the first and renamed: ``f(rename(x))`` --> ``rename(f(x))``. So the rows' gates are loaded
and summed once, whichever axis asks. Values with more axes are left alone: renamed they may have
to be turned in registers, where memory can be read either way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ...ir.tile import Value


@dataclass(frozen=True, slots=True)
class Before:
    """Values before their axis ``axis`` was called ``to``."""

    values: tuple[Value | None, ...]
    axis: str
    to: str

    @property
    def present(self) -> tuple[Value, ...]:
        """Those that are there."""
        return tuple(value for value in self.values if value is not None)

    @property
    def first(self) -> Value:
        """The first that is there."""
        return self.present[0]


@dataclass
class Renames:
    """The renamed values of a program."""

    _made: dict[str, tuple[Value, str, str]] = field(default_factory=dict)

    def note(self, out: Value, x: Value, axis: str, to: str) -> None:
        """Keep in mind that ``out`` is ``x`` with ``axis`` called ``to``."""
        if len(x.axes) == 1:
            self._made[out.name] = (x, axis, to)

    def before(self, values: Sequence[Value | None]) -> Before | None:
        """The values before the one rename that they share; those without axes stay."""
        found: list[Value | None] = []
        names: set[tuple[str, str]] = set()
        for value in values:
            if value is None or not value.axes:
                found.append(value)
            elif (made := self._made.get(value.name)) is not None:
                found.append(made[0])
                names.add(made[1:])
            else:
                return None
        return Before(tuple(found), *names.pop()) if len(names) == 1 else None
