"""Renamed axes, triangular and dense systems of equations, as C++."""

from __future__ import annotations

from ...ir.tile import Rename, Solve, Substitute, Value
from .kernel_scope import Array, KernelScope
from .nest import NestText, declared


def write_rename(kernel: KernelScope, op: Rename) -> None:
    """The same array under other axes; a copy where they then lie out of order."""
    if not kernel.needs_plain(op.out):
        return
    declared(kernel, op.x)
    kernel.arrays[op.out.name] = kernel.renamed(op)
    _as_laid_out(kernel, op.out)


def write_substitute(kernel: KernelScope, op: Substitute) -> None:
    """A copy of the right-hand side, in which each row takes in those before it."""
    declared(kernel, op.a)
    a = kernel.arrays[op.a.name]
    order = (op.rows, *kernel.layout.sort(op.out.axes - {op.rows}))
    columns = kernel.size(order) // kernel.blocks[op.rows]
    name = _in_order(kernel, op.b, order, op.out)
    strides = _strides(kernel, a)
    kernel.add(
        f"mx::substitute<{kernel.blocks[op.rows]}, {columns}>"
        f"({name}, {a.name}, {strides[op.rows]}, {strides[op.columns]});"
    )
    _finish(kernel, op.out, name, order)


def write_solve(kernel: KernelScope, op: Solve) -> None:
    """Elimination in copies of both sides."""
    others = kernel.layout.sort(op.out.axes - {op.right})
    matrix = _in_order(kernel, op.matrix, (op.left, op.right), op.matrix)
    vector = _in_order(kernel, op.vector, (op.left, *others), op.vector)
    order = (op.right, *others)
    columns = kernel.size(order) // kernel.blocks[op.right]
    name = _new(kernel, op.out, order)
    kernel.add(
        f"mx::solve<{kernel.blocks[op.left]}, {columns}>"
        f"({name}, {matrix}, {vector}, {kernel.length(op.left)});"
    )
    _finish(kernel, op.out, name, order)


def _strides(kernel: KernelScope, array: Array) -> dict[str, int]:
    strides, step = {}, 1
    for axis in reversed(array.axes):
        strides[axis] = step
        step *= kernel.blocks[axis]
    return strides


def _new(kernel: KernelScope, hint: Value, order: tuple[str, ...]) -> str:
    name = kernel.fresh(hint.name)
    kernel.local("float", name, kernel.size(order))
    return name


def _in_order(kernel: KernelScope, x: Value, order: tuple[str, ...], hint: Value) -> str:
    """A fresh copy of a value with its axes in a given order; missing ones repeat it."""
    declared(kernel, x)
    name = _new(kernel, hint, order)
    array = kernel.arrays[x.name].axes
    ordered = array[-1] == order[-1]
    nest = NestText(kernel, order, vector=ordered and kernel.in_vectors(order))
    nest.store(Array(name, order), nest.value(x))
    kernel.add(*nest.lines())
    return name


def _finish(kernel: KernelScope, out: Value, name: str, order: tuple[str, ...]) -> None:
    """Let ``out`` be the array that has been filled, in the order that the layout wants."""
    kernel.bind(out, name, order)
    _as_laid_out(kernel, out)


def _as_laid_out(kernel: KernelScope, out: Value) -> None:
    """A copy of the array behind ``out`` where its axes are not in the layout's order."""
    order = kernel.layout.of(out)
    if kernel.arrays[out.name].axes != order:
        nest = NestText(kernel, order, vector=False)
        value = nest.value(out)
        del kernel.arrays[out.name]
        nest.store(Array(kernel.declare(out).name, order), value)
        kernel.add(*nest.lines())
