"""Triton's interpreter, as tests and ``verify`` need it.

Scans and reductions of its own take minutes, so do its checks that no sum or product of whole
numbers leaves its type, and the truth of a comparison of real numbers is a real number to it, which
meets no other truth value where it is spread over a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import RLock
from types import SimpleNamespace
from typing import Any

# The interpreter is one for all threads, and what is changed of it is put back in order.
_ONE = RLock()


@contextmanager
def mended() -> Iterator[None]:
    """Scans and reductions with a function of the kernel's own combine slices, comparisons give
    truth values, and what is the same at each call is done once.

    The function is called on tiles then, as it is elementwise: in a scan in the order in which the
    interpreter would call it, in a reduction by halves. Which whole numbers need 64 bits is decided
    by the ranges of the program (see ``compiler/analysis/integer_range.py``), and a GPU does not
    check it either.
    """
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    with _ONE, ExitStack() as stack:
        changes: list[tuple[Any, str, Any]] = [
            (interpreter.ScanOps, "generic_scan", _generic_scan),
            (interpreter.ReduceOps, "generic_reduce", _generic_reduce),
            (
                interpreter.InterpreterBuilder,
                "binary_op",
                _typed(interpreter.InterpreterBuilder.binary_op),
            ),
            (builder, "options", replace(builder.options, sanitize_overflow=False)),
            (interpreter, "_get_np_dtype", _by_name(interpreter._get_np_dtype)),
            (interpreter, "_patch_lang", _patched_once(interpreter._patch_lang, stack)),
        ]
        for owner, name, value in changes:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


def _by_name(numpy_dtype: Any) -> Any:
    """The interpreter's table of numpy's dtypes, which it makes anew for each value."""
    known: dict[str, Any] = {}

    def found(kind: Any) -> Any:
        name = kind.scalar.name
        if name not in known:
            known[name] = numpy_dtype(kind.scalar)
        return known[name]

    return found


def _patched_once(patch_lang: Any, stack: ExitStack) -> Any:
    """The interpreter's change of the language's modules, once and not at each call of a function
    within a kernel; it is undone with the rest."""
    import triton.language as tl

    done = set[frozenset[str]]()

    def patched(function: Any) -> Any:
        named = function.__globals__.values()
        modules = frozenset(m.__name__ for m in named if m is tl or m is tl.core)
        if modules not in done:
            done.add(modules)
            stack.callback(patch_lang(function).restore)
        return SimpleNamespace(restore=lambda: None)

    return patched


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
