"""Elementwise affine states by a doubling scan, in torch: log2(T) rounds over the whole sequence.

Kogge and Stone: after round n every row holds what the 2 ** n rows up to it do together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Term = Tensor | None  # None is the semiring's zero
Operation = Callable[[Tensor, Tensor], Tensor]
OPERATIONS: dict[str, Operation] = {
    "add": torch.add,
    "mul": torch.mul,
    "max": torch.maximum,
    "min": torch.minimum,
    "logaddexp": torch.logaddexp,
}


def scan(
    coefficients: Sequence[Sequence[Term]],
    offsets: Sequence[Tensor],
    starts: Sequence[Tensor],
    axis: int,
    plus: Operation,
    times: Operation,
) -> list[Tensor]:
    """Every row's states of s_i' = plus over j of times(coefficients[i][j], s_j), plus offsets[i].

    All tensors have time at ``axis``: offsets whole, coefficients of length 1 where they don't
    change, starts of length 1.
    """
    matrix = [list(row) for row in coefficients]
    added = [
        _begun(b, row, starts, axis, plus, times) for b, row in zip(offsets, matrix, strict=True)
    ]
    length, step = added[0].shape[axis], 1
    while step < length:
        earlier = [_rows(b, axis, 0, -step) for b in added]
        here = [[_rows(a, axis, step) for a in row] for row in matrix]
        for n, row in enumerate(here):
            more = _dot(row, earlier, plus, times)
            if more is not None:
                first, rest = torch.split(added[n], [step, length - step], axis)
                added[n] = torch.cat([first, plus(rest, more)], axis)
        if 2 * step < length:
            before = [[_rows(a, axis, 0, -step) for a in row] for row in matrix]
            columns = list(zip(*before, strict=True))
            matrix = [
                [_late(_dot(row, c, plus, times), axis, step) for c in columns] for row in here
            ]
        step *= 2
    return added


def _begun(
    offset: Tensor,
    row: Sequence[Term],
    starts: Sequence[Tensor],
    axis: int,
    plus: Operation,
    times: Operation,
) -> Tensor:
    """The offsets, the first row's with what it makes of the starts."""
    first = [None if a is None else a.narrow(axis, 0, 1) for a in row]
    made = _dot(first, starts, plus, times)
    if made is None:
        return offset
    one, rest = torch.split(offset, [1, offset.shape[axis] - 1], axis)
    return torch.cat([plus(one, made), rest], axis)


def _rows(term: Term, axis: int, first: int, last: int | None = None) -> Term:
    if term is None or term.shape[axis] == 1:
        return term
    return term[(slice(None),) * axis + (slice(first, last),)]


def _late(term: Term, axis: int, step: int) -> Term:
    """Put back the ``step`` rows that a product lacks: they are done, so any number serves."""
    if term is None or term.shape[axis] == 1:
        return term
    shape = [*term.shape[:axis], step, *term.shape[axis + 1 :]]
    return torch.cat([term.new_zeros(shape), term], axis)


def _plus(a: Term, b: Term, plus: Operation) -> Term:
    if a is None or b is None:
        return b if a is None else a
    return plus(a, b)


def _dot(row: Sequence[Term], column: Sequence[Term], plus: Operation, times: Operation) -> Term:
    found: Term = None
    for a, b in zip(row, column, strict=True):
        if a is not None and b is not None:
            found = _plus(found, times(a, b), plus)
    return found
