"""Recurrences as tasks: row by row, in chunks of rows, or as parallel scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from .expression import Expr, Kind, Ref
from .kernel_task import KernelTask
from .names import names_in
from .node import At
from .recurrence_forms import Affine, Coupled, Matrix, Reading
from .rewriting import walk
from .single_assignment import Repeated, Version, point_name

PLACES = 128  # that one warp of a GPU has for rows at once, channels and what they have of states
_ANY = 1 << 20  # positions of an axis whose length nobody knows


@dataclass(frozen=True, slots=True)
class Carrying:
    """A state in a kernel: what it starts from, its names within a row, where its last value goes.

    ``initial`` has the state's axes or fewer; ``last`` is a buffer, or None.
    """

    name: str
    dims: frozenset[str]
    kind: Kind
    initial: Expr
    before: Ref
    after: Expr
    last: str | None


class RecurrenceTask(KernelTask):
    """States, and rows along ``over``.

    ``own`` pairs a buffer with what each row stores there. ``positions`` are the dims of which a
    program takes one position, ``tiled`` the one of which it takes a block.
    """

    __slots__ = ()

    over: str
    states: tuple[Any, ...]
    own: tuple[tuple[Any, ...], ...]
    positions: tuple[str, ...]
    tiled: tuple[str, ...]

    @property
    def carrying(self) -> tuple[Carrying, ...]:
        """The states as the kernel carries them."""
        return self.states

    @property
    def walked(self) -> frozenset[str]:
        """The axes that a program walks."""
        return frozenset({self.over})

    @property
    def row_values(self) -> Iterator[Expr]:
        """What is computed in every row, its own results among it."""
        raise NotImplementedError

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers that the kernel fills: rows, then last values of states."""
        lasts = (state.last for state in self.carrying if state.last is not None)
        return (*(name for name, *_ in self.own), *lasts)


@dataclass(frozen=True, slots=True)
class LoopTask(RecurrenceTask):
    """A recurrence row by row: names written out, lines in single assignment."""

    schedule: ClassVar[str] = "loop"

    name: str
    over: str
    reverse: bool
    lines: tuple[Version | Repeated, ...]
    states: tuple[Carrying, ...]
    own: tuple[tuple[str, Expr], ...]
    positions: tuple[str, ...]
    tiled: tuple[str, ...]
    about: str = ""
    reason: str = ""

    @property
    def walked(self) -> frozenset[str]:
        """The axes that a program walks."""
        rounds = (line.over for line in self.lines if isinstance(line, Repeated))
        return frozenset({self.over, *rounds})

    @property
    def row_values(self) -> Iterator[Expr]:
        """What the lines of a row compute, and its own results."""
        yield from line_values(self.lines)
        yield from (value for _, value in self.own)

    @property
    def expressions(self) -> Iterator[Expr]:
        """Every expression that the kernel evaluates."""
        yield from self.row_values
        for state in self.states:
            yield from (state.initial, state.after)

    @property
    def local(self) -> frozenset[str]:
        """Names in the expressions that the kernel itself gives a value."""
        return frozenset({*_made(self.lines), *(state.before.name for state in self.states)})


@dataclass(frozen=True, slots=True)
class ScanTask(RecurrenceTask):
    """Affine states, component by component.

    In the expressions a state ``S`` of an earlier component is ``S.in`` (as the row finds it) and
    ``S.out`` (as the row leaves it), with the axis ``over``; so it is in ``own``. ``segment`` is as
    a chunk task has it.
    """

    schedule: ClassVar[str] = "scan"

    name: str
    over: str
    reverse: bool
    forms: tuple[Affine, ...]
    states: tuple[Carrying, ...]
    own: tuple[tuple[str, Expr], ...]
    positions: tuple[str, ...]
    tiled: tuple[str, ...]
    segment: str | None = None
    about: str = ""
    reason: str = ""

    @property
    def row_values(self) -> Iterator[Expr]:
        """The coefficients and offsets of a row, and its own results."""
        for form in self.forms:
            yield from form.expressions
        yield from (value for _, value in self.own)

    @property
    def read_axes(self) -> frozenset[str]:
        """The axes of all that rows compute and of what that is made of, sums' own among them."""
        return frozenset[str]().union(*(x.axes for v in self.row_values for x in walk(v)))

    def places_of_a_channel(
        self, sizes: Mapping[str, int], heads: frozenset[tuple[str, str]]
    ) -> int | None:
        """How many places rows have for each position of the axis that is shared out; None where
        some state lacks it, or where rows have sums, which each part of it would make again."""
        dims = frozenset[str]().union(*(state.dims for state in self.states))
        dims = dims.union(*(value.axes for value in self.row_values))
        met = {group for group, head in heads if head in dims | {*self.positions}}
        own = dims - met - {*self.positions, self.over}
        groups = {group for group, _ in heads}
        summed = self.read_axes - own - {*self.positions, self.over} - groups
        if summed or not self.tiled or not all({*self.tiled} <= s.dims for s in self.states):
            return None
        return prod(sizes.get(dim, _ANY) for dim in own - {*self.tiled})

    @property
    def expressions(self) -> Iterator[Expr]:
        """Every expression that the kernel evaluates."""
        yield from self.row_values
        yield from (state.initial for state in self.states)

    @property
    def local(self) -> frozenset[str]:
        """Names in the expressions that the kernel itself gives a value."""
        return _points(self.states)

    @property
    def read_before(self) -> frozenset[str]:
        """The states that some expression reads as the row finds them."""
        read = names_in(*self.row_values)
        return frozenset(state.name for state in self.states if state.before.name in read)


@dataclass(frozen=True, slots=True)
class ChunkTask(RecurrenceTask):
    """Matrix states a chunk of rows at a time.

    ``own`` says besides in which rows a value is stored (None: in all). ``parts`` are dims whose
    positions follow from that of ``over``, which then has ``size`` rows. ``segment`` is a dim that
    counts stretches of rows, of which a program takes one.
    """

    schedule: ClassVar[str] = "chunk"

    name: str
    over: str
    reverse: bool
    states: tuple[tuple[Matrix | Coupled, tuple[Carrying, ...]], ...]
    readings: tuple[Reading, ...]
    own: tuple[tuple[str, Expr, Expr | None], ...]
    positions: tuple[str, ...]
    tiled: tuple[str, ...]
    parts: tuple[tuple[str, Expr], ...] = ()
    size: Expr | None = None
    segment: str | None = None
    about: str = ""
    reason: str = ""

    @property
    def carrying(self) -> tuple[Carrying, ...]:
        """The states of all components."""
        return tuple(state for _, group in self.states for state in group)

    @property
    def listed(self) -> frozenset[str]:
        """The axes that the spec lists for states: those of their matrices."""
        states = (state for form, _ in self.states for state in form.states)
        return frozenset(dim for state in states for dim in state.listed)

    @property
    def walked(self) -> frozenset[str]:
        """The axes that a program walks, with those whose positions follow."""
        return frozenset({self.over, *dict(self.parts)})

    @property
    def corrected(self) -> bool:
        """Whether some row's writes depend on what the state holds: a triangular solve a chunk."""
        return any(form.corrected for form, _ in self.states)

    @property
    def row_values(self) -> Iterator[Expr]:
        """What a row brings to the states and reads of them, and its own results."""
        for form, _ in self.states:
            yield from form.expressions
        yield from (reading.query for reading in self.readings)
        yield from (value for _, value, _ in self.own)

    @property
    def expressions(self) -> Iterator[Expr]:
        """Every expression that the kernel evaluates: of a decay, itself or its logarithm."""
        yield from self.row_values
        logs = (form.log_decay for form, _ in self.states if isinstance(form, Matrix))
        yield from (log for log in logs if log is not None)
        yield from (where for _, _, where in self.own if where is not None)
        yield from (place for _, place in self.parts)
        yield from (state.initial for state in self.carrying)

    @property
    def local(self) -> frozenset[str]:
        """Names in the expressions that the kernel itself gives a value."""
        return _points(self.carrying) | {reading.ref.name for reading in self.readings}


def _points(states: Sequence[Carrying]) -> frozenset[str]:
    """The states' names as a row finds and as it leaves them."""
    return frozenset(point_name(state.name, at) for state in states for at in (At.BEFORE, At.AFTER))


def line_values(lines: Sequence[Version | Repeated]) -> Iterator[Expr]:
    """The expressions of a step's lines, those of inner loops too."""
    for line in lines:
        match line:
            case Version(_, _, value):
                yield value
            case Repeated(_, inner, handed):
                yield from line_values(inner)
                for state in handed:
                    yield from (state.before, state.end)


def _made(lines: Sequence[Version | Repeated]) -> Iterator[str]:
    """The versions that lines make."""
    for line in lines:
        match line:
            case Version(ref, _, _):
                yield ref.name
            case Repeated(_, inner, handed, own):
                yield from _made(inner)
                for state in handed:
                    yield from (state.start.name, state.after.name)
                yield from (whole.name for _, whole in own)
