"""A sum over lags as a tile program has it, term by term."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import torch
from torch import Tensor

from ...ir.tile import Convolve
from .tile_memory import Memory


def convolve(
    op: Convolve, memory: Mapping[str, Memory], numbers: Mapping[str, int], block: int
) -> str | None:
    """Fill the result's rows at the places of a program; what is wrong with them, if anything.

    ``numbers`` are the values that the op reads, ``block`` is how many of ``lanes`` are taken.
    """
    sizes = {dim: numbers[value.name] for dim, value in op.sizes}
    places = {dim: numbers[value.name] for dim, value in op.index}
    here = [places]
    if op.lanes is not None:
        start = places[op.lanes]
        stop = min(start + block, sizes[op.lanes])
        here = [{**places, op.lanes: lane} for lane in range(start, stop)]
    rows, lags = (torch.arange(sizes[dim]) for dim in (op.row, op.lag))
    at = op.row_sign * rows[:, None] + op.lag_sign * lags + numbers[op.offset.name]
    exists = (at >= 0) & (at < sizes[op.over])
    at = at.clamp(0, max(sizes[op.over] - 1, 0))
    for place in here:
        total = torch.zeros(len(rows), dtype=memory[op.result].data.dtype)
        for more in product(*(range(sizes[dim]) for dim in op.summed)):
            there = {**place, **dict(zip(op.summed, more, strict=True))}
            factors: list[Tensor] = []
            for name, along in ((op.kernel, op.lag), (op.signal, op.over)):
                line = _line(memory[name], along, there)
                if not memory[name].has_all(line, None):
                    return f"a sum over lags reads elements of {name} that nobody wrote"
                factors.append(memory[name].data[line])
            kernel, signal = factors
            if len(signal):
                total += torch.where(exists, kernel * signal[at], 0.0).sum(1)
        if not memory[op.result].write(_line(memory[op.result], op.row, place), total):
            return f"a sum over lags goes to elements of {op.result} that have a value"
    return None


def _line(memory: Memory, along: str, places: Mapping[str, int]) -> Tensor:
    """Flat places in a buffer along one axis, the others where they are placed."""
    flat = torch.zeros(1, dtype=torch.int64)
    for dim, size in zip(memory.buffer.dims, memory.shape, strict=True):
        flat = flat * size + (torch.arange(size) if dim == along else places[dim])
    return flat


__all__ = ["convolve"]
