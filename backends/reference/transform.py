"""Fourier transforms of whole buffers as a tile program has them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...ir.transform import Transform
from ..fourier import by_torch
from .tile_memory import Memory


def transform(op: Transform, memory: Mapping[str, Memory]) -> str | None:
    """Fill the results; what is wrong with them, if anything."""
    order = op.order(memory[op.results[0]].buffer.dims)
    given = []
    for operand in op.operands:
        held = memory[operand.buffer]
        if not held.is_whole():
            return f"a transform reads elements of {operand.buffer} that nobody wrote"
        places = [operand.dims.index(dim) for dim in order]
        given.append(held.data.reshape(held.shape).permute(places))
    real, imaginary = given[0], given[1] if len(given) > 1 else None
    parts = [torch.empty(real.shape, dtype=real.dtype) for _ in range(2)]
    by_torch(real, imaginary, parts, op.axis_signs(order))
    for name, part in zip(op.parts, parts, strict=True):
        if name is None:
            continue
        dims = op.order(memory[name].buffer.dims)
        value = part.permute([order.index(dim) for dim in dims]).reshape(-1)
        if not memory[name].write(torch.arange(value.numel()), value):
            return f"a transform goes to elements of {name} that have a value"
    return None


__all__ = ["transform"]
