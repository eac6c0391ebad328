"""Triton's interpreter, as tests and ``verify`` need it: scans of its own take minutes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def scans_by_slices() -> Iterator[None]:
    """Scans with a function of the kernel's own combine slices, not one element after another.

    The function is called on tiles then, as it is elementwise, in the order in which the
    interpreter would call it.
    """
    from triton.runtime.interpreter import ScanOps

    original = ScanOps.generic_scan
    ScanOps.generic_scan = _generic_scan
    try:
        yield
    finally:
        ScanOps.generic_scan = original


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


def _tensor(scan: Any, row: Any, dtype: Any) -> Any:
    return scan.to_tensor(row if row.shape else row.item(), dtype)
