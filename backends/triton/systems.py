"""Triangular and dense systems whose matrix is a tile in registers, as calls of functions."""

from __future__ import annotations

from ...ir.tile import Solve, Substitute, Value
from ..python_text import Text, call
from .kernel_scope import KernelScope

_LEAST_OF_A_DOT = 16
# Where tensor cores don't take the products, as many rows go one after the other, and of more rows
# as many at once.
_ROW_BY_ROW = 16


def write_substitute(kernel: KernelScope, op: Substitute) -> None:
    """A unit triangular system."""
    a = kernel.ordered(op.a, (op.rows, op.columns))
    b = _as_columns(kernel, op.b, op.rows)
    rows = kernel.program.tile(op.rows).block
    if kernel.precision == "tf32" and rows >= _LEAST_OF_A_DOT:
        kernel.device.add("substitute_by_halves")
        solved = call("_substitute_by_halves", a, b, LEVELS=rows.bit_length() - 1)
    elif rows <= _ROW_BY_ROW:
        kernel.device.add("substitute")
        solved = call("_substitute", a, b)
    else:
        kernel.device.add("substitute_blocks")
        solved = call("_substitute_blocks", a, b, PRECISION=f'"{kernel.precision}"')
    kernel.define(op, op.out, _from_columns(kernel, op.out, op.rows, solved))


def write_solve(kernel: KernelScope, op: Solve) -> None:
    """A dense system, on the positions that exist."""
    kernel.device.add("solve")
    matrix = kernel.ordered(op.matrix, (op.left, op.right))
    vector = _as_columns(kernel, op.vector, op.left)
    solved = call("_solve", matrix, vector, SIZE=f"{kernel.program.tile(op.left).size}")
    kernel.define(op, op.out, _from_columns(kernel, op.out, op.right, solved))


def _as_columns(kernel: KernelScope, value: Value, first: str) -> Text:
    """A value as a matrix whose rows are ``first``; all its other axes are the columns."""
    rest = tuple(a for a in kernel.layout.of(value) if a != first)
    if first not in value.axes:
        shape = kernel.blocks((first, *rest))
        text = call("tl.broadcast_to", kernel.texts[value.name].then("[None]"), f"[{shape}]")
    else:
        text = kernel.ordered(value, (first, *rest))
    if not rest:
        return text.then("[:, None]")
    if len(rest) == 1:
        return text
    shape = f"{kernel.blocks((first,))}, {kernel.blocks(rest, ' * ')}"
    return call("tl.reshape", text, f"[{shape}]")


def _from_columns(kernel: KernelScope, out: Value, first: str, text: Text) -> Text:
    """The way back from ``_as_columns``."""
    order = kernel.layout.of(out)
    made = (first, *(a for a in order if a != first))
    if len(made) != 2:
        text = call("tl.reshape", text, f"[{kernel.blocks(made)}]")
    return kernel.turned(text, made, order)
