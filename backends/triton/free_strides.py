"""What Triton is not to know of the tensors of a kernel."""

from __future__ import annotations

from ...ir.tile import Combine, Program, all_ops


def free_strides(program: Program) -> tuple[str, ...]:
    """The strides that Triton is not to know anything of.

    Where it knows that rows begin at multiples of 16 it gives several neighbours of a row to each
    lane, and rows to several lanes. A warp that scans rows by itself would then have to pass each
    row on from lane to lane.
    """
    scanned = {op.over for op in all_ops(program.body) if isinstance(op, Combine)}
    if not scanned or dict(program.launch).get("num_warps") != 1:
        return ()
    tiled = {axis.dim for axis in program.grid if axis.tiled}
    return tuple(
        f"{buffer.name}_stride_{dim}"
        for buffer in program.buffers.values()
        for dim in buffer.dims[:-1]
        if dim in scanned and buffer.dims[-1] in tiled
    )
