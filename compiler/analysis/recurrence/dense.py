"""A small state that a matrix mixes in each row, with no nonlinearity: LMU, S4 with a dense A."""

from __future__ import annotations

from ....ir.expression import Call, Index, Literal
from ....ir.mixer import State
from ....ir.recurrence_forms import Dense
from .polynomial import plus, tidy, times
from .superposition import Superposition


def dense(state: State, value: Superposition, over: str) -> Dense | None:
    """s' = sum(A * s[N=p], P) + offset, with what scales s on A's diagonal."""
    mixed = [t for t in value.terms if t.over]
    if len(mixed) != 1 or len(mixed[0].moved) != 1 or len(mixed[0].over) != 1:
        return None
    (term,), ((axis, index),) = mixed, mixed[0].moved
    (column,) = term.over
    if index.axes != {column} or not isinstance(index, Index):
        return None
    matrix = times(term.coefficient, term.weight or Literal(1))
    for plain in (t for t in value.terms if not t.over):
        if plain.moved:
            return None
        diagonal = Call("where", (Call("eq", (Index(axis), index)), plain.coefficient, Literal(0)))
        matrix = plus(matrix, diagonal)
    free = tidy(value.free)
    return Dense(
        state, axis, column, matrix, None if free == Literal(0) else free, over not in matrix.axes
    )
