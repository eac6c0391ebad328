"""Calls on tensors without values, on torch's device meta or of its FakeTensorMode.

The outputs have their shapes and dtypes, and nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from ..ir.binding import Number, bind_sizes, shape_of
from ..ir.errors import ArgumentError
from ..ir.expression import Kind
from ..ir.mixer import Mixer, Output
from .documents import row_sizes

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def outline(
    mixer: Mixer,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """The outputs of a call by name, without values; ArgumentError where the shapes don't fit."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return _made(mixer.outputs, tensors, bind_sizes(mixer, shapes, params), dtype)


def packed_outline(
    mixer: Mixer,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number],
    cu_seqlens: Tensor | Mapping[str, Tensor],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """The same of a call on documents end to end; what has no row has them as its batch."""
    from ..compiler.mixers.pack.pack_recurrence import per_document
    from ..compiler.mixers.pack.pack_sequences import last_outputs
    from ..compiler.mixers.pack.packing_plan import families_of

    families = families_of(mixer)
    names = tuple(entry.name for entry in per_document(mixer, families))
    sizes = row_sizes(mixer, names, tensors, params)
    edges = cu_seqlens if isinstance(cu_seqlens, Mapping) else {"": cu_seqlens}
    documents = max(next(iter(edges.values())).shape[0] - 1, 0)
    derived = dict(families.derived)
    last = {output.name for output in last_outputs(mixer)}
    made: dict[str, Tensor] = {}
    for output in mixer.outputs:
        if (unknown := next((d for d in output.dims if d in derived), None)) is not None:
            raise ArgumentError(
                f"cu_seqlens: how long {unknown} of {output.name} is depends on its values, and a "
                "call on tensors without values does not look at them"
            )
        own = {**sizes, "B": documents} if output.name in last else sizes
        made |= _made((output,), tensors, own, dtype)
    return made


def _made(
    outputs: Iterable[Output],
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Outputs like the inputs."""
    import torch

    like = next(iter(tensors.values())) if tensors else torch.empty(0)
    made = {}
    for output in outputs:
        own = _dtype(output, dtype)
        made[output.name] = like.new_empty(shape_of(output.layout, sizes), dtype=own)
    return made


def _dtype(output: Output, dtype: torch.dtype) -> torch.dtype:
    """That of an output of a call in ``dtype``."""
    import torch

    if output.kind is Kind.REAL:
        own = None if dtype is torch.float64 else output.dtype
        return dtype if own is None else cast("torch.dtype", getattr(torch, own))
    return torch.bool if output.kind is Kind.BOOL else torch.int32


__all__ = ["outline", "packed_outline"]
