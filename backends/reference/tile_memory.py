"""Memory as tile programs see it: flat, every element written once, none read before that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ...ir.plan import Buffer, Plan
from ...ir.tile import DType


class OutsideError(Exception):
    """The place ``place`` on the ``axis``-th axis of a buffer, which does not exist."""

    def __init__(self, axis: int, place: int) -> None:
        super().__init__(f"{place} on axis {axis}")
        self.axis, self.place = axis, place


@dataclass
class Memory:
    """A tensor in memory; ``writer`` is -1 where nobody wrote, and nothing where it was given."""

    buffer: Buffer
    shape: tuple[int, ...]
    data: Tensor
    writer: Tensor | None

    def is_whole(self) -> bool:
        """Whether every element holds something."""
        return self.writer is None or bool((self.writer >= 0).all())

    def has_all(self, flat: Tensor, mask: Tensor | None) -> bool:
        """Whether the elements at ``flat``, where the mask holds, hold something."""
        if self.writer is None:
            return True
        held = self.writer[flat] >= 0
        return bool((held if mask is None else held | ~mask).all())

    def write(self, flat: Tensor, value: Tensor, again: bool = False) -> bool:
        """Write, and say whether no element had a value before (or may: ``again``) or got two."""
        assert self.writer is not None
        if not again and bool((self.writer[flat] >= 0).any()):
            return False
        turns = torch.arange(flat.numel()).reshape(flat.shape)
        self.data[flat] = value.to(self.data.dtype)
        self.writer[flat] = turns
        return bool((self.writer[flat] == turns).all())

    def add(self, flat: Tensor, value: Tensor) -> bool:
        """Add, and say whether every element had a value, and none got two."""
        assert self.writer is not None
        known = self.has_all(flat, None)
        self.writer[flat] = -1
        return known and self.write(flat, self.data[flat] + value)


def allocate(
    plan: Plan,
    buffer: Buffer,
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    dtype: torch.dtype,
) -> Memory:
    """The memory of a buffer: inputs and tables as they are given, all else unwritten."""
    shape = tuple(sizes[d] for d in buffer.dims)
    kind = torch_dtype(buffer.dtype, dtype)
    match buffer.role:
        case "input":
            return Memory(buffer, shape, tensors[buffer.name].to(kind).reshape(-1), None)
        case "table":
            table = next(t for t in plan.mixer.tables if t.name == buffer.name)
            return Memory(buffer, shape, torch.tensor(list(table.values)).to(kind), None)
        case _:
            nothing = torch.nan if kind.is_floating_point else 0
            data = torch.full([prod(shape)], nothing, dtype=kind)
            return Memory(buffer, shape, data, torch.full([prod(shape)], -1))


def torch_dtype(dtype: DType, real: torch.dtype) -> torch.dtype:
    """Reals in one type, integers wide enough that what would overflow is seen."""
    if dtype.is_float:
        return real
    return torch.bool if dtype is DType.BOOL else torch.int64


def places(index: Sequence[Tensor], shape: Sequence[int], mask: Tensor | None) -> Tensor:
    """Flat places in row-major order, 0 where masked.

    Raises:
        OutsideError: a place that is not masked and not there.
    """
    flat: Tensor | int = 0
    for axis, (tensor, size) in enumerate(zip(index, shape, strict=True)):
        at = tensor if tensor.ndim else int(tensor)
        if isinstance(at, int):
            if not 0 <= at < size and (mask is None or bool(mask.any())):
                raise OutsideError(axis, at)
        else:
            outside = (at < 0) | (at >= size)
            outside = outside if mask is None else outside & mask
            if bool(outside.any()):
                raise OutsideError(axis, int(at.expand_as(outside)[outside][0]))
        flat = flat * size + at
    made = torch.tensor(flat) if isinstance(flat, int) else flat
    return made if mask is None else torch.where(mask, made, 0)
