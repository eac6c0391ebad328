"""Complex numbers, written as pairs of real expressions.

A complex value lives in the loader alone: what it becomes in the mixer are its two parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ...ir.expression import Expr, Kind


@dataclass(frozen=True)
class Complex(Expr):
    """re + i im."""

    re: Expr
    im: Expr

    @cached_property
    def axes(self) -> frozenset[str]:
        return self.re.axes | self.im.axes

    @cached_property
    def kind(self) -> Kind:
        return Kind.REAL

    @property
    def children(self) -> tuple[Expr, ...]:
        return (self.re, self.im)


def parts(value: Expr) -> tuple[Expr, ...]:
    """A real value by itself, or the two parts of a complex one."""
    return (value.re, value.im) if isinstance(value, Complex) else (value,)


def together(values: Iterable[Expr]) -> Expr:
    """The value whose parts these are."""
    first, *rest = values
    return Complex(first, *rest) if rest else first


__all__ = ["Complex", "parts", "together"]
