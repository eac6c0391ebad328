"""Tensors whose axes have names, and how they line up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...ir.expression import Kind


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor and the dim of each of its axes, in the order that the setting gives to all."""

    tensor: Tensor
    dims: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """What one run has in common: sizes, numbers, precision and device.

    ``sizes`` also fixes the order in which every value keeps its axes. Numbers that come from
    positions and params alone are kept in ``position_dtype``, at least float32, until they meet
    data: nobody computes the angle of position 1001 in bfloat16.

    Inside a loop a dim may be at one of its rows: its size is 1, and ``rows`` has its position and
    its whole length. Factors of products are rounded to ``factor_dtype`` where there is one.
    """

    sizes: Mapping[str, int]
    params: Mapping[str, bool | int | float]
    dtype: torch.dtype
    device: torch.device
    rows: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    factor_dtype: torch.dtype | None = None

    @property
    def position_dtype(self) -> torch.dtype:
        """The precision of values that no real input takes part in."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    def ordered(self, dims: Iterable[str]) -> tuple[str, ...]:
        """``dims`` in the order of this setting, each once."""
        wanted = set(dims)
        return tuple(dim for dim in self.sizes if dim in wanted)

    def positions(self, dim: str) -> Value:
        """0 ... size - 1 along ``dim``; of a dim at one of its rows, that row's."""
        first = self.rows[dim][0] if dim in self.rows else 0
        return Value(torch.arange(first, first + self.sizes[dim], device=self.device), (dim,))

    def places(self, dim: str) -> Value:
        """Where the positions along ``dim`` are in a tensor."""
        return Value(torch.arange(self.sizes[dim], device=self.device), (dim,))

    @property
    def lengths(self) -> Mapping[str, int]:
        """The sizes, whole, of dims at one of their rows too."""
        return {**self.sizes, **{dim: length for dim, (_, length) in self.rows.items()}}

    def of_steps(self) -> Setting:
        """The setting inside a recurrence: float32 at least, products of rounded factors."""
        if self.dtype == self.position_dtype:
            return self
        return replace(self, dtype=self.position_dtype, factor_dtype=self.dtype)

    def in_steps(self, value: Value) -> Value:
        """A value from outside, as a recurrence (whose setting this is) sees it."""
        if not value.dims or not value.tensor.is_floating_point():
            return value
        return Value(value.tensor.to(self.dtype), value.dims)

    def after_steps(self, value: Value) -> Value:
        """A recurrence's own name, as what follows (whose setting this is) sees it."""
        return self.in_steps(value)

    def number(self, number: bool | int | float) -> Value:
        """A host number, without axes; a real one is float64 and takes what it meets."""
        kind = {bool: torch.bool, int: torch.int64}.get(type(number), torch.float64)
        return Value(torch.tensor(number, dtype=kind, device=self.device))

    def shape(self, dims: Iterable[str]) -> list[int]:
        """The sizes of ``dims``."""
        return [self.sizes[dim] for dim in dims]

    def reordered(self, value: Value) -> Value:
        """The value with its axes in the order of this setting."""
        dims = self.ordered(value.dims)
        return Value(value.tensor.permute([value.dims.index(dim) for dim in dims]), dims)

    def expanded(self, value: Value, dims: Iterable[str]) -> Value:
        """The value with (at least) all of ``dims``, repeated along those it lacks."""
        wanted = self.ordered({*value.dims, *dims})
        (tensor,) = self.aligned([value], wanted)
        return Value(tensor.expand(self.shape(wanted)), wanted)

    def aligned(self, values: Sequence[Value], dims: Sequence[str] | None = None) -> list[Tensor]:
        """Tensors that broadcast against each other; those without axes stay without."""
        wanted = self.ordered({d for v in values for d in v.dims}) if dims is None else dims
        return [
            v.tensor[tuple(slice(None) if d in v.dims else None for d in wanted)]
            if v.dims or dims is not None
            else v.tensor
            for v in values
        ]

    def of_kind(self, value: Value, kind: Kind) -> Value:
        """The value as ``kind``; booleans count as 0 and 1, a number is true where it is not 0."""
        tensor = value.tensor
        match kind:
            case Kind.BOOL:
                tensor = tensor if tensor.dtype == torch.bool else tensor != 0
            case Kind.INT:
                tensor = tensor.to(torch.int64)
            case Kind.REAL:
                if not tensor.is_floating_point():
                    tensor = tensor.to(self.position_dtype if value.dims else torch.float64)
        return Value(tensor, value.dims)

    def in_one_precision(self, values: Sequence[Value]) -> list[Value]:
        """Reals as they meet: data's precision wins over that of positions and numbers."""
        real = [v for v in values if v.tensor.is_floating_point() and v.dims]
        if not any(v.tensor.dtype == self.dtype for v in real):
            return list(values)
        return [
            Value(v.tensor.to(self.dtype), v.dims) if any(v is r for r in real) else v
            for v in values
        ]
