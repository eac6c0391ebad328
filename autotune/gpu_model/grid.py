"""How many programs a kernel has at given sizes, and the bytes that it has to move."""

from __future__ import annotations

import math
from collections.abc import Mapping
from math import prod

from ...ir.plan import Kernel


def programs_of(kernel: Kernel, sizes: Mapping[str, int]) -> int:
    """Programs of the grid, at least one."""
    blocks = {t.dim: t.block for t in kernel.program.tiles}
    each = [
        math.ceil(sizes.get(a.dim, 1) / blocks[a.dim]) if a.tiled else sizes.get(a.dim, 1)
        for a in kernel.program.grid
    ]
    return max(1, prod(each))


def moved_bytes(kernel: Kernel, sizes: Mapping[str, int]) -> float:
    """Bytes of the tensors that a kernel reads and writes, each once."""
    return float(
        sum(
            prod(sizes.get(d, 1) for d in b.dims) * b.dtype.size_bytes
            for b in kernel.program.buffers.values()
        )
    )
