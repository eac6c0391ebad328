"""Documents end to end in one row: the tables that a packed mixer takes, from ``cu_seqlens``."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from ..ir.binding import Number, evaluate_host
from ..ir.errors import ArgumentError
from ..ir.expression import Expr, Scalar
from ..ir.rewriting import walk
from .documents import Edges, check_documents

if TYPE_CHECKING:
    from torch import Tensor

    from ..compiler.mixers.pack.pack_sequences import Packing
    from ..compiler.mixers.pack.packing_plan import Families
    from ..ir.mixer import Mixer


def document_tables(
    packed: Packing,
    mixer: Mixer,
    cu_seqlens: Tensor | Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number] = {},
) -> dict[str, Tensor]:
    """The inputs that ``packed`` has beside those of ``mixer``.

    Args:
        cu_seqlens: integers [documents + 1], where each document begins, and the end of the last;
            for a mixer with several packed axes (cross attention) one for each, by axis.
        tensors: the inputs of the call; the tables come to lie where they do.

    Raises ArgumentError where they are no such boundaries.
    """
    import torch

    edges = checked_edges(packed, mixer, cu_seqlens, tensors, params)
    if packed.per_document:
        check_documents(mixer, packed.per_document, tensors, edges)
    device = next(iter(tensors.values())).device
    tables = {}
    for table in packed.tables:
        ends = edges[table.family]
        match table.what:
            case "first":
                own = ends[:-1]
            case "end":
                own = ends[1:]
            case "number":
                own = list(range(len(ends) - 1))
        lengths = torch.tensor(_lengths(edges[table.axis]), device="cpu")
        values = torch.tensor(own, dtype=torch.int32, device="cpu")
        tables[table.name] = values.repeat_interleave(lengths)
    return {name: table.to(device) for name, table in tables.items()}


def checked_edges(
    packed: Packing | Families,
    mixer: Mixer,
    cu_seqlens: Tensor | Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number],
) -> Edges:
    """The boundaries along every packed axis, which end where the tensors do."""
    edges = document_edges(packed, mixer, cu_seqlens, params, _own_sizes(mixer, tensors))
    for axis in packed.axes:
        _check_end(axis, edges[axis], _length(mixer, axis, tensors))
    return edges


def document_edges(
    packed: Packing | Families,
    mixer: Mixer,
    cu_seqlens: Tensor | Mapping[str, Tensor],
    params: Mapping[str, Number],
    sizes: Mapping[str, int] = {},
) -> Edges:
    """The boundaries along every packed axis; those of derived axes follow per document.

    ``sizes``: of dims that are no positions, as far as derived axes depend on them.
    """
    edges = {axis: _edges(axis, given) for axis, given in _by_axis(packed, cu_seqlens).items()}
    documents = {axis: len(found) - 1 for axis, found in edges.items()}
    if len(set(documents.values())) > 1:
        told = ", ".join(f"{axis} {count}" for axis, count in documents.items())
        raise ArgumentError(f"cu_seqlens: expected as many documents along each axis, got {told}")
    for dim, size in packed.derived:
        lengths = [
            _size(mixer, size, {**sizes, **_document_sizes(mixer, edges, number)}, params)
            for number in range(min(documents.values()))
        ]
        edges[dim] = [0, *accumulate(lengths)]
    return edges


def _by_axis(packed: Packing | Families, given: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One tensor where one axis is packed, else one for each."""
    axes = ", ".join(packed.axes)
    if isinstance(given, Mapping):
        if set(given) != set(packed.axes):
            raise ArgumentError(f"cu_seqlens: expected one for each of {axes}, got {list(given)}")
        return dict(given)
    if len(packed.axes) > 1:
        example = ", ".join(f"{axis!r}: ..." for axis in packed.axes)
        raise ArgumentError(f"cu_seqlens: expected one for each of {axes}: {{{example}}}")
    return {packed.axes[0]: given}


def _edges(axis: str, given: Tensor) -> list[int]:
    import torch

    if not isinstance(given, torch.Tensor) or given.dtype not in (torch.int32, torch.int64):
        found = given.dtype if isinstance(given, torch.Tensor) else type(given).__name__
        raise ArgumentError(f"cu_seqlens: expected a tensor of int32 or int64, got {found}")
    if given.dim() != 1 or len(given) == 0:
        shape = list(given.shape)
        raise ArgumentError(f"cu_seqlens: expected [documents + 1] boundaries, got {shape}")
    edges = boundaries(given)
    if edges[0] != 0 or any(later < earlier for earlier, later in pairwise(edges)):
        raise ArgumentError(
            f"cu_seqlens: expected boundaries along {axis} that start at 0 and never fall, "
            f"got {edges[:8]}"
        )
    return edges


def boundaries(given: Tensor) -> list[int]:
    """The values of ``cu_seqlens``; ArgumentError where it has none."""
    try:
        return [int(edge) for edge in given.tolist()]
    except RuntimeError as error:  # on the device meta, or of FakeTensorMode
        raise ArgumentError(
            "cu_seqlens: its values are needed here, and this one has none: give a plain tensor"
        ) from error


def _length(mixer: Mixer, axis: str, tensors: Mapping[str, Tensor]) -> tuple[int, str] | None:
    """How long an axis is, and the input that says so; None where only products have it."""
    for given in mixer.inputs:
        for place, product in enumerate(given.layout):
            own = len(product) == 1 and (mixer.sequence(product[0]) or product[0]) == axis
            if own and given.name in tensors and tensors[given.name].dim() == len(given.layout):
                return tensors[given.name].shape[place], f"{product[0]} in {given.name}"
    return None


def _own_sizes(mixer: Mixer, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes of dims that are an axis of some tensor by themselves."""
    found: dict[str, int] = {}
    for given in mixer.inputs:
        if given.name in tensors and tensors[given.name].dim() == len(given.layout):
            shape = tensors[given.name].shape
            found |= {
                product[0]: int(n)
                for product, n in zip(given.layout, shape, strict=True)
                if len(product) == 1
            }
    return found


def _check_end(axis: str, edges: list[int], length: tuple[int, str] | None) -> None:
    if length is not None and edges[-1] != length[0]:
        raise ArgumentError(
            f"cu_seqlens: expected boundaries that end at {axis} = {length[0]} as {length[1]}, "
            f"got {edges[-1]}"
        )


def _lengths(edges: list[int]) -> list[int]:
    return [end - start for start, end in pairwise(edges)]


def _document_sizes(mixer: Mixer, edges: Edges, number: int) -> dict[str, int]:
    """The sizes of one document, by sequence and by the dims that run over it."""
    own = {axis: found[number + 1] - found[number] for axis, found in edges.items()}
    return own | {dim: own[axis] for dim, axis in mixer.sequences if axis in own}


def _size(mixer: Mixer, value: Expr, sizes: Mapping[str, int], params: Mapping[str, Number]) -> int:
    values = dict(params)
    for node in walk(value):
        if isinstance(node, Scalar) and node.name not in values:
            values[node.name] = _size(mixer, mixer.param(node.name).value, sizes, params)
    return int(evaluate_host(value, sizes, values))
