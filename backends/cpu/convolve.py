"""A long sum over lags as a call of the runtime's Fourier transform."""

from __future__ import annotations

from ...ir.tile import Convolve
from .functions import MEMORY_TYPE
from .kernel_scope import KernelScope


def write_convolve(kernel: KernelScope, op: Convolve) -> None:
    """The rows of three buffers at this program's places, and the sum that leads between them."""
    sizes = {dim: kernel.scalar(value).code for dim, value in op.sizes}
    walked = ((op.result, op.row), (op.kernel, op.lag), (op.signal, op.over))
    rows = [_row(kernel, op, name, along) for name, along in walked]
    strides = [[_stride(kernel, name, d) for d in op.summed] for name, _ in walked[1:]]
    numbers = (
        *(sizes[dim] for _, dim in walked),
        str(op.row_sign),
        str(op.lag_sign),
        kernel.scalar(op.offset).code,
        str(len(op.summed)),
        *(f"{{{', '.join(part)}}}" for part in ([sizes[d] for d in op.summed], *strides)),
    )
    lanes = "1"
    if op.lanes is not None:
        start, block = kernel.scalar(dict(op.index)[op.lanes]).code, kernel.blocks[op.lanes]
        lanes = f"mx::clip({sizes[op.lanes]} - {start}, {block})"
    types = ", ".join(MEMORY_TYPE[kernel.program.buffers[name].dtype] for name, _ in walked)
    kernel.add(
        f"mx::convolve<{types}>(",
        *(f"    {row}," for row in rows),
        f"    {lanes}, {{{', '.join(numbers)}}});",
    )


def _row(kernel: KernelScope, op: Convolve, name: str, along: str) -> str:
    places = {d: kernel.scalar(v).code for d, v in op.index if d != along}
    dims = kernel.program.buffers[name].dims
    terms = [f"int64_t({places[d]}) * {name}_stride_{d}" for d in dims if d in places]
    lane = "0" if op.lanes is None else _stride(kernel, name, op.lanes)
    return f"{{{' + '.join([name, *terms])}, {name}_stride_{along}, {lane}}}"


def _stride(kernel: KernelScope, name: str, dim: str) -> str:
    return f"{name}_stride_{dim}" if dim in kernel.program.buffers[name].dims else "0"


__all__ = ["write_convolve"]
