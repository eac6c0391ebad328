"""Triton's interpreter, as tests and ``verify`` need it.

Scans and reductions of its own take minutes, and the truth of a comparison of real numbers is a
real number to it, which meets no other truth value where it is spread over a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def mended() -> Iterator[None]:
    """Scans and reductions with a function of the kernel's own combine slices, and comparisons give
    truth values.

    The function is called on tiles then, as it is elementwise: in a scan in the order in which the
    interpreter would call it, in a reduction by halves.
    """
    from triton.runtime.interpreter import InterpreterBuilder, ReduceOps, ScanOps

    scan, binary = ScanOps.generic_scan, InterpreterBuilder.binary_op
    reduction = ReduceOps.generic_reduce
    ScanOps.generic_scan, InterpreterBuilder.binary_op = _generic_scan, _typed(binary)
    ReduceOps.generic_reduce = _generic_reduce
    try:
        yield
    finally:
        ScanOps.generic_scan, InterpreterBuilder.binary_op = scan, binary
        ReduceOps.generic_reduce = reduction


def _typed(binary: Any) -> Any:
    import triton.language as tl

    def binary_op(builder: Any, lhs: Any, rhs: Any, op: Any) -> Any:
        made = binary(builder, lhs, rhs, op)
        if made.data.dtype == bool:
            made.dtype = tl.int1
        return made

    return binary_op


def _generic_scan(scan: Any, inputs: Any) -> list[Any]:
    import numpy

    data = [numpy.moveaxis(x.handle.data, scan.axis, 0) for x in inputs]
    made = [numpy.empty_like(d) for d in data]
    so_far: Any = ()
    for n in range(len(data[0])):
        here = [_tensor(scan, d[n], x.dtype) for d, x in zip(data, inputs, strict=True)]
        so_far = scan.combine_fn.fn(*so_far, *here) if n else here
        so_far = so_far if isinstance(so_far, list | tuple) else (so_far,)
        for out, value in zip(made, so_far, strict=True):
            out[n] = value.handle.data.reshape(out[n].shape)
    moved = [numpy.moveaxis(out, 0, scan.axis) for out in made]
    return [scan.to_tensor(out, x.dtype) for out, x in zip(moved, inputs, strict=True)]


def _generic_reduce(reduction: Any, inputs: Any) -> list[Any]:
    import numpy

    axis, kinds = reduction.axis or 0, [x.dtype for x in inputs]
    data = [x.handle.data for x in inputs]
    if reduction.axis is None:
        data = [d.reshape(-1) for d in data]
    data = [numpy.moveaxis(d, axis, 0) for d in data]
    while (half := len(data[0]) // 2) > 0:
        parts = [
            (d[at : at + half], kind)
            for at in (0, half)
            for d, kind in zip(data, kinds, strict=True)
        ]
        made = reduction.combine_fn.fn(*(_tensor(reduction, *part) for part in parts))
        made = made if isinstance(made, list | tuple) else (made,)
        data = [m.handle.data.reshape(d[:half].shape) for m, d in zip(made, data, strict=True)]
    rest = [numpy.moveaxis(d, 0, axis) if reduction.keep_dims else d[0] for d in data]
    return [reduction.to_tensor(r, kind) for r, kind in zip(rest, kinds, strict=True)]


def _tensor(scan: Any, row: Any, dtype: Any) -> Any:
    return scan.to_tensor(row if row.shape else row.item(), dtype)
