"""Device functions for triangular and dense systems whose matrix is a tile in registers.

A register tile has no rows that could be picked by number: a row or a column is a masked sum.
Nothing is transposed, and no row is moved but by such a sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...ir.tile import Solve, Substitute, Value
from .functions import ATOM, Text

if TYPE_CHECKING:
    from .kernel_text import KernelText

# As many rows are taken one after the other, of more as many at once.
_ROW_BY_ROW = 16

# Put at the head of a module that uses them, as ``functions.DEVICE_FUNCTIONS`` are.
LINEAR_FUNCTIONS: Mapping[str, str] = {
    "substitute": """
def _substitute(a, b):
    # The x for which x[i] = b[i] + sum of a[i, j] x[j] over j < i, a row after the other.
    ROWS: tl.constexpr = a.shape[0]
    i = tl.arange(0, ROWS)[:, None]
    j = tl.arange(0, ROWS)[None, :]
    below = tl.where(i > j, a, 0.0)
    for row in tl.static_range(ROWS - 1):
        factor = tl.sum(tl.where(j == row, below, 0.0), 1)
        done = tl.sum(tl.where(i == row, b, 0.0), 0)
        b += factor[:, None] * done[None, :]
    return b
""",
    "substitute_blocks": """
def _substitute_blocks(a, b, PRECISION: tl.constexpr):
    # The x for which x[i] = b[i] + sum of a[i, j] x[j] over j < i: blocks of 16 rows one after the
    # other, each by the inverse of its own triangle, which substitution row by row has made.
    ROWS: tl.constexpr = a.shape[0]
    COLUMNS: tl.constexpr = b.shape[1]
    COUNT: tl.constexpr = ROWS // 16
    i = tl.arange(0, ROWS)[:, None]
    j = tl.arange(0, ROWS)[None, :]
    below = tl.where(i > j, a, 0.0)
    block = tl.arange(0, COUNT)
    row = tl.arange(0, 16)[None, :, None]
    column = tl.arange(0, 16)[None, None, :]
    diagonal = block[:, None, None, None] == block[None, None, :, None]
    blocks = tl.sum(tl.where(diagonal, tl.reshape(below, [COUNT, 16, COUNT, 16]), 0.0), 2)
    inverse = tl.where(row == column, 1.0, tl.zeros([COUNT, 16, 16], tl.float32))
    for n in tl.static_range(15):
        factor = tl.sum(tl.where(column == n, blocks, 0.0), 2)
        done = tl.sum(tl.where(row == n, inverse, 0.0), 1)
        inverse += factor[:, :, None] * done[:, None, :]
    below = tl.reshape(below, [ROWS, COUNT, 16])
    for n in tl.static_range(COUNT):
        own = tl.sum(tl.where(block[:, None, None] == n, inverse, 0.0), 0)
        rows = tl.reshape(b, [COUNT, 16, COLUMNS])
        rows = tl.sum(tl.where(block[:, None, None] == n, rows, 0.0), 0)
        done = tl.dot(own, rows, input_precision=PRECISION)
        factor = tl.sum(tl.where(block[None, :, None] == n, below, 0.0), 1)
        b = tl.dot(factor, done, b, input_precision=PRECISION)
    return b
""",
    "solve": """
def _solve(matrix, vector, SIZE: tl.constexpr):
    # The x for which matrix x = vector, by Gauss and Jordan with the largest pivot of each column.
    ROWS: tl.constexpr = matrix.shape[0]
    i = tl.arange(0, ROWS)[:, None]
    j = tl.arange(0, ROWS)[None, :]
    for n in range(SIZE):
        column = tl.sum(tl.where(j == n, matrix, 0.0), 1)[:, None]
        candidates = tl.where((i >= n) & (i < SIZE), tl.abs(column), -1.0)
        pivot_row = tl.argmax(tl.max(candidates, 1), 0)
        pivot = tl.sum(tl.where(i == pivot_row, column, 0.0))
        first = tl.sum(tl.where(i == n, matrix, 0.0), 0)[None, :]
        first_value = tl.sum(tl.where(i == n, vector, 0.0), 0)[None, :]
        row = tl.sum(tl.where(i == pivot_row, matrix, 0.0), 0)[None, :] / pivot
        value = tl.sum(tl.where(i == pivot_row, vector, 0.0), 0)[None, :] / pivot
        factor = tl.where(i == pivot_row, tl.sum(tl.where(i == n, column, 0.0)), column)
        matrix = tl.where(i == pivot_row, first, matrix)
        vector = tl.where(i == pivot_row, first_value, vector)
        matrix = tl.where(i == n, row, matrix - factor * row)
        vector = tl.where(i == n, value, vector - factor * value)
    return vector
""",
}


def write_substitute(kernel: KernelText, op: Substitute) -> None:
    """A unit triangular system."""
    a = kernel.ordered(op.a, (op.rows, op.columns))
    b = _as_columns(kernel, op.b, op.rows)
    if kernel.program.tile(op.rows).block <= _ROW_BY_ROW:
        kernel.device.add("substitute")
        code = f"_substitute({a.code}, {b.code})"
    else:
        kernel.device.add("substitute_blocks")
        code = f'_substitute_blocks({a.code}, {b.code}, PRECISION="{kernel.precision}")'
    solved = Text(code, ATOM, a.reads | b.reads)
    kernel.define(op, op.out, _from_columns(kernel, op.out, op.rows, solved))


def write_solve(kernel: KernelText, op: Solve) -> None:
    """A dense system, on the positions that exist."""
    kernel.device.add("solve")
    matrix = kernel.ordered(op.matrix, (op.left, op.right))
    vector = _as_columns(kernel, op.vector, op.left)
    size = kernel.program.tile(op.left).size
    code = f"_solve({matrix.code}, {vector.code}, SIZE={size})"
    solved = Text(code, ATOM, matrix.reads | vector.reads)
    kernel.define(op, op.out, _from_columns(kernel, op.out, op.right, solved))


def _as_columns(kernel: KernelText, value: Value, first: str) -> Text:
    """A value as a matrix whose rows are ``first``; all its other axes are the columns."""
    rest = tuple(a for a in kernel.layout.of(value) if a != first)
    if first not in value.axes:
        shape = kernel.blocks((first, *rest))
        text = kernel.texts[value.name]
        text = Text(f"tl.broadcast_to({text.at(ATOM)}[None], [{shape}])", ATOM, text.reads)
    else:
        text = kernel.ordered(value, (first, *rest))
    if not rest:
        return Text(f"{text.at(ATOM)}[:, None]", ATOM, text.reads)
    if len(rest) == 1:
        return text
    shape = f"{kernel.blocks((first,))}, {kernel.blocks(rest, ' * ')}"
    return Text(f"tl.reshape({text.code}, [{shape}])", ATOM, text.reads)


def _from_columns(kernel: KernelText, out: Value, first: str, text: Text) -> Text:
    """The way back from ``_as_columns``."""
    order = kernel.layout.of(out)
    made = (first, *(a for a in order if a != first))
    if len(made) != 2:
        text = Text(f"tl.reshape({text.code}, [{kernel.blocks(made)}])", ATOM, text.reads)
    return kernel.turned(text, made, order)
