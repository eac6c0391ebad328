"""Tasks that rank the numbers of a row: where the largest end, and which are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from .expression import Expr
from .kernel_task import KernelTask
from .mixer import Rule


@dataclass(frozen=True, slots=True)
class SelectionTask(KernelTask):
    """The ``kept`` largest of ``x`` along ``over``, row by row.

    The largest of those that ``among`` admits, where it is given; what is no number never counts.
    Ties are for the lower position. Programs take tiles of rows along ``tiled``.
    """

    name: str
    x: Expr
    over: str
    kept: Expr
    tiled: tuple[str, ...]
    about: str = ""
    reason: str = ""
    among: Expr | None = None

    @property
    def expressions(self) -> Iterator[Expr]:
        """Every expression that the kernel evaluates."""
        yield from (self.x, self.kept)
        if self.among is not None:
            yield self.among


@dataclass(frozen=True, slots=True)
class EndsTask(SelectionTask):
    """Where the largest end: the least of them in ``least``, the place of its last equal that is
    one of them in ``last``."""

    schedule: ClassVar[str] = "selection"

    least: str = ""
    last: str = ""

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that the kernel fills."""
        return self.least, self.last


@dataclass(frozen=True, slots=True)
class OwnNumbers:
    """A buffer for the numbers of the rows that a program has at hand, from one pass to the next.

    Its dims are the rows' that no tile has, ``shares``, which counts the programs that the rows are
    dealt out to, block after block in turn, then the dim chosen from, and ``block``, which is as
    long as a block of rows.
    """

    buffer: str
    shares: str
    block: str


@dataclass(frozen=True, slots=True)
class ChoiceTask(SelectionTask):
    """Whether each candidate is chosen, or ``always`` holds, in ``chosen``, for each of ``rows``.

    ``kept`` is the bound of the ``rule``: how many (``top``), what to be larger than (``above``),
    or which part of the softmax's sum is to be reached (``mass``). ``listed`` has the places of the
    chosen, best first, then others that ``always`` adds, in ``slots`` places; -1 follows. Either
    may be asked for alone. With ``own`` the numbers are made by the kernel, once: each pass over a
    row then compares the same bits.
    """

    schedule: ClassVar[str] = "choice"

    rows: tuple[str, ...] = ()
    rule: Rule = "top"
    chosen: str | None = None
    always: Expr | None = None
    own: OwnNumbers | None = None
    listed: str | None = None
    slots: str = ""

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that the kernel fills."""
        return (*self.computes, *(() if self.own is None else (self.own.buffer,)))

    @property
    def computes(self) -> tuple[str, ...]:
        """The results by name."""
        return tuple(filter(None, (self.chosen, self.listed)))

    @property
    def expressions(self) -> Iterator[Expr]:
        """Every expression that the kernel evaluates."""
        yield from super(ChoiceTask, self).expressions
        if self.always is not None:
            yield self.always


__all__ = ["ChoiceTask", "EndsTask", "OwnNumbers", "SelectionTask"]
