"""The tables of a packed mixer, computed from where its documents begin and end."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from ...ir.errors import ArgumentError
from ...ir.expression import Expr, Scalar, walk
from ...ir.host import Number, evaluate_host
from ...ir.mixer import Mixer
from .pack_sequences import Packing

if TYPE_CHECKING:
    from torch import Tensor


def packing_tables(
    mixer: Mixer,
    packing: Packing,
    cu_seqlens: Tensor | Mapping[str, Tensor],
    params: Mapping[str, Number] = {},
) -> dict[str, Tensor]:
    """The inputs that ``packing(mixer)`` adds, on the device of ``cu_seqlens``.

    ``cu_seqlens``: [documents + 1] integers, from 0 to the length of the row, never falling; one
    tensor for all packed axes, or one for each, by its name (``{"I": ..., "J": ...}``).

    Raises:
        ArgumentError: boundaries that are missing, that fall, or that disagree in their number.
    """
    ends = {axis: _boundaries(axis, packing.axes, cu_seqlens) for axis in packing.axes}
    _check(ends)
    lengths = {axis: [b - a for a, b in pairwise(bounds)] for axis, bounds in ends.items()}
    for axis, size in packing.derived:
        lengths[axis] = [
            int(_value(mixer, size, sizes, params)) for sizes in _document_sizes(mixer, lengths)
        ]
    first = cu_seqlens if not isinstance(cu_seqlens, Mapping) else next(iter(cu_seqlens.values()))
    return {
        table.name: _table(lengths[table.axis], lengths[table.family], table.end, first)
        for table in packing.tables
    }


def _boundaries(
    axis: str, axes: tuple[str, ...], cu_seqlens: Tensor | Mapping[str, Tensor]
) -> list[int]:
    given = cu_seqlens
    if isinstance(given, Mapping):
        if axis not in given:
            raise ArgumentError(
                f"cu_seqlens: expected boundaries for {', '.join(axes)}, got {', '.join(given)}"
            )
        given = given[axis]
    if given.ndim != 1 or given.is_floating_point() or given.numel() == 0:
        raise ArgumentError(
            f"cu_seqlens: expected integers [documents + 1], got {given.dtype} {list(given.shape)}"
        )
    bounds = [int(bound) for bound in given.tolist()]
    if bounds[0] != 0 or any(a > b for a, b in pairwise(bounds)):
        raise ArgumentError(
            f"cu_seqlens: expected boundaries that begin at 0 and never fall, got {bounds[:8]}"
        )
    return bounds


def _check(ends: Mapping[str, list[int]]) -> None:
    counts = {axis: len(bounds) - 1 for axis, bounds in ends.items()}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{count} along {axis}" for axis, count in counts.items())
        raise ArgumentError(f"cu_seqlens: expected as many documents along each axis, got {text}")


def _document_sizes(mixer: Mixer, lengths: Mapping[str, list[int]]) -> list[dict[str, int]]:
    """For each document the sizes of all dims that are known by now."""
    count = len(next(iter(lengths.values())))
    found = []
    for document in range(count):
        sizes = {axis: own[document] for axis, own in lengths.items()}
        sizes.update({dim: sizes[seq] for dim, seq in mixer.sequences if seq in sizes})
        found.append(sizes)
    return found


def _value(
    mixer: Mixer, expr: Expr, sizes: Mapping[str, int], params: Mapping[str, Number]
) -> Number:
    """An expression in sizes and params, of which only those are looked at that it has."""
    needed = {node.name for node in walk(expr) if isinstance(node, Scalar)}
    values = {
        name: params[name]
        if name in params
        else _value(mixer, mixer.param(name).value, sizes, params)
        for name in needed
    }
    return evaluate_host(expr, sizes, values)


def _table(axis: list[int], family: list[int], end: bool, like: Tensor) -> Tensor:
    """For each position along the axis where its document begins (ends) along the family."""
    import torch

    edges = torch.tensor([0, *family], dtype=torch.int64).cumsum(0)
    chosen = edges[1:] if end else edges[:-1]
    spread = torch.repeat_interleave(chosen, torch.tensor(axis, dtype=torch.int64))
    return spread.to(torch.int32).to(like.device)
