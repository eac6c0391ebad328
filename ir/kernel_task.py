"""What every task says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from .expression import Expr
from .names import names_in


class KernelTask:
    """What every task says of itself.

    ``about`` heads the kernel in emitted code, ``reason`` is why it is a kernel of its own.
    """

    __slots__ = ()

    schedule: ClassVar[str]
    name: str
    about: str
    reason: str

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that the kernel fills."""
        raise NotImplementedError

    @property
    def computes(self) -> tuple[str, ...]:
        """The results by name."""
        return self.writes

    @property
    def expressions(self) -> Iterator[Expr]:
        """Every expression that the kernel evaluates."""
        raise NotImplementedError

    @property
    def tables(self) -> tuple[str, ...]:
        """Buffers that are read beside those of the expressions."""
        return ()

    @property
    def local(self) -> frozenset[str]:
        """Names in the expressions that the kernel itself gives a value."""
        return frozenset()

    @property
    def reads(self) -> frozenset[str]:
        """The buffers that the expressions read."""
        return names_in(*self.expressions) - self.local
