"""What the algebra of a step shows: the classes that schedules are chosen by.

A recurrence is classified component by component: the strongly connected components of its states,
each given the ones before it. Inside a form, ``Ref("S.in", ...)`` is the state S before the row (as
``versions`` names it, before any reset) and ``Ref("S.out", ...)`` the state that the row leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .expression import Expr, Ref
from .mixer import State


@dataclass(frozen=True, slots=True)
class Reading:
    """``ref`` = sum(query * S, axes) in each row, S before the row or as the row leaves it.

    A read at another point of the step is rewritten to a read before the row and terms of the
    row's own. ``query`` has no state in it; it has none of the state's own axes but the one in
    ``axes``, and may have axes that the state lacks (several queries for one state). With ``at``,
    S is read at these positions of its other axes first (a state kept per group of heads).
    """

    ref: Ref
    state: str
    query: Expr
    axes: tuple[str, ...]
    after: bool
    at: tuple[tuple[str, Expr], ...] = ()


@dataclass(frozen=True, slots=True)
class Matrix:
    """S' = decay * S + sum of u * sum(w * S, key_axis) + sum of k * v: the chunk form.

    ``decay`` has no axis of the state's own but ``key_axis`` (a number, a scalar per row, or one
    per entry of the axis); ``log_decay`` is its logarithm where the decay is an exponential. The
    corrections (u, w) have ``key_axis`` and none of the state's other axes. A write is (k, v): k
    has ``key_axis`` or nothing of the state's own, v the rest. ``value_axes`` are the axes along
    which states are independent columns: decay, u, w and k lack them, v lacks ``key_axis``. All the
    state's other axes are a batch, which anything may have. Where the error of a delta rule is
    written back, u is k itself, and the sign is in w.
    """

    state: State
    key_axis: str
    decay: Expr
    log_decay: Expr | None
    corrections: tuple[tuple[Expr, Expr], ...]
    writes: tuple[tuple[Expr, Expr], ...]
    value_axes: tuple[str, ...] = ()

    @property
    def states(self) -> tuple[State, ...]:
        """The state, as one of several."""
        return (self.state,)

    @property
    def corrected(self) -> int:
        """How many values a row's corrections need of the state before it."""
        return len(self.corrections)

    @property
    def decays(self) -> Iterator[Expr]:
        """What the states are multiplied by in a row."""
        yield self.decay

    @property
    def expressions(self) -> Iterator[Expr]:
        """Decays, then corrections and writes, factor by factor."""
        yield from self.decays
        yield from (e for pair in (*self.corrections, *self.writes) for e in pair)


@dataclass(frozen=True, slots=True)
class Dense:
    """s' = sum(matrix * s, axis) + offset, the result along ``axis`` again: a small mixed state.

    ``matrix`` has ``axis`` for the result and ``column`` for what is summed, an axis of the same
    length: s' = sum(matrix * s[axis=column], column) + offset. ``constant``: the matrix does not
    change from row to row.
    """

    state: State
    axis: str
    column: str
    matrix: Expr
    offset: Expr | None
    constant: bool

    @property
    def states(self) -> tuple[State, ...]:
        """The state, as one of several."""
        return (self.state,)


@dataclass(frozen=True, slots=True)
class Affine:
    """s_i' = plus over j of times(coefficients[i][j], s_j), plus offsets[i]: the scan form.

    ``plus`` and ``times`` are elementwise functions, a semiring: (add, mul), (max, add),
    (min, add) or (logaddexp, add). A coefficient of None is the semiring's zero. ``constant``: no
    coefficient changes from row to row.
    """

    states: tuple[State, ...]
    plus: str
    times: str
    coefficients: tuple[tuple[Expr | None, ...], ...]
    offsets: tuple[Expr | None, ...]
    constant: bool = False

    @property
    def expressions(self) -> Iterator[Expr]:
        """The coefficients and offsets of a row."""
        yield from (c for row in self.coefficients for c in row if c is not None)
        yield from (o for o in self.offsets if o is not None)

    @property
    def places(self) -> list[tuple[int, int]]:
        """The places of A that a product of any number of rows can fill."""
        count = len(self.states)
        places = {(i, j) for i in range(count) for j in range(count) if self.coefficients[i][j]}
        places |= {(i, i) for i in range(count)}  # past the last row A changes nothing
        while True:
            more = {(i, k) for i, j in places for j2, k in places if j == j2} - places
            if not more:
                return sorted(places)
            places |= more


@dataclass(frozen=True, slots=True)
class Coupled:
    """Matrix states of one shape that mix by scalars: S_i' = sum of a_ij * S_j + ... (momentum).

    ``decay[i][j]`` are scalars of the row; corrections, writes and ``value_axes`` are as in
    ``Matrix``, a correction naming the state that it reads.
    """

    states: tuple[State, ...]
    key_axis: str
    decay: tuple[tuple[Expr | None, ...], ...]
    corrections: tuple[tuple[tuple[Expr, Expr, str], ...], ...]
    writes: tuple[tuple[tuple[Expr, Expr], ...], ...]
    value_axes: tuple[str, ...] = ()

    @property
    def corrected(self) -> int:
        """How many values a row's corrections need of the states before it."""
        return len({(w, state) for of in self.corrections for _, w, state in of})

    @property
    def decays(self) -> Iterator[Expr]:
        """What the states are multiplied by in a row."""
        yield from (e for row in self.decay for e in row if e is not None)

    @property
    def expressions(self) -> Iterator[Expr]:
        """Decays, then corrections and writes, factor by factor."""
        yield from self.decays
        yield from (e for of in self.corrections for u, w, _ in of for e in (u, w))
        yield from (e for of in self.writes for pair in of for e in pair)


@dataclass(frozen=True, slots=True)
class Loop:
    """No parallel form: ``term`` stands in the way, ``kind`` says what a row's work is.

    ``elementwise``: each channel by itself; ``mixing``: states are mixed by weights that do not
    change; ``dots``: anything else.
    """

    states: tuple[State, ...]
    kind: str
    term: Expr
    reason: str


Form = Matrix | Affine | Dense | Coupled | Loop


@dataclass(frozen=True, slots=True)
class Classified:
    """A recurrence's components in the order in which they can be computed.

    ``readings`` are the contractions of matrix states that rows and later components use; ``own``
    gives the step's own names as expressions in inputs, readings, and the states ``S.in`` and
    ``S.out`` of components that are not matrices.
    """

    components: tuple[Form, ...]
    readings: tuple[Reading, ...]
    own: tuple[tuple[str, Expr], ...]
