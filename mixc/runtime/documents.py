"""Documents of a packed row one by one: for what has one value per document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from ..ir.binding import Number, bind_sizes, shape_of
from ..ir.errors import ArgumentError, UnsupportedError
from ..ir.mixer import Layout, Mixer

if TYPE_CHECKING:
    from torch import Tensor

# axis -> where each document begins along it, and the end of the last
Edges = dict[str, list[int]]
Run = Callable[["Mapping[str, Tensor]"], "Mapping[str, Tensor]"]
_BATCH = ("B",)


def one_by_one(
    mixer: Mixer,
    inputs: Mapping[str, Tensor],
    edges: Edges,
    sizes: Mapping[str, int],
    per_document: tuple[str, ...],
    run: Run,
) -> dict[str, Tensor]:
    """Each document by ``run``, put together again; 0 between documents.

    Args:
        edges: where documents begin along each packed axis, and the end of the last.
        sizes: those of the row.
        per_document: the inputs whose batch is the documents.

    Returns:
        The outputs by name; one without a packed axis has the documents along the batch.
    """
    import torch

    for output in mixer.outputs:
        if not _places(mixer, output.layout, edges) and _BATCH not in output.layout:
            raise UnsupportedError(
                f"{mixer.name}: {output.name} has one value for each document, and no batch axis B "
                "to put them along; call it for one document at a time, without cu_seqlens"
            )
    rows = {o.name for o in mixer.outputs if _places(mixer, o.layout, edges)}
    made: dict[str, Tensor] = {}
    last: dict[str, list[Tensor]] = {o.name: [] for o in mixer.outputs if o.name not in rows}
    for number in range(len(next(iter(edges.values()))) - 1):
        if not last and all(ends[number] == ends[number + 1] for ends in edges.values()):
            continue
        results = run(_document(mixer, inputs, edges, number, sizes, per_document))
        for output in mixer.outputs:
            result = results[output.name]
            if output.name not in rows:
                last[output.name].append(result)
                continue
            if output.name not in made:
                made[output.name] = result.new_zeros(shape_of(output.layout, sizes))
            cut(mixer, output.layout, made[output.name], edges, number, sizes).copy_(result)
    like = next(iter(inputs.values()))
    for output in mixer.outputs:
        if last.get(output.name):
            made[output.name] = torch.cat(last[output.name], output.layout.index(_BATCH))
        elif output.name not in made:  # no documents, or empty ones
            own = {**sizes, "B": 0} if output.name in last else sizes
            made[output.name] = like.new_zeros(shape_of(output.layout, own))
    return made


def check_documents(
    mixer: Mixer,
    names: tuple[str, ...],
    tensors: Mapping[str, Tensor],
    edges: Edges,
    one_row: bool = False,
) -> None:
    """Refuse inputs of documents that are not as many, and then rows of several batch entries."""
    one_row = one_row or any(name in tensors for name in names)
    documents = len(next(iter(edges.values()))) - 1
    for entry in mixer.inputs:
        if _BATCH not in entry.layout or entry.name not in tensors:
            continue
        found = tensors[entry.name].shape[entry.layout.index(_BATCH)]
        if entry.name in names and found != documents:
            raise ArgumentError(
                f"{entry.name}: with cu_seqlens its B is the documents: expected {documents}, "
                f"got {found}"
            )
        if (
            one_row
            and entry.name not in names
            and found != 1
            and _places(mixer, entry.layout, edges)
        ):
            raise ArgumentError(
                f"{entry.name}: documents lie in one row where each has a state of its own: "
                f"expected B = 1, got {found}"
            )


def row_sizes(
    mixer: Mixer,
    names: tuple[str, ...],
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number],
) -> dict[str, int]:
    """The sizes of a row; inputs of documents have its batch of one."""
    shapes = {}
    for entry in mixer.inputs:
        if entry.name in tensors:
            shape = list(tensors[entry.name].shape)
            if entry.name in names and len(shape) == len(entry.layout):
                shape[entry.layout.index(_BATCH)] = 1
            shapes[entry.name] = tuple(shape)
    return bind_sizes(mixer, shapes, params)


def _document(
    mixer: Mixer,
    inputs: Mapping[str, Tensor],
    edges: Edges,
    number: int,
    sizes: Mapping[str, int],
    per_document: tuple[str, ...],
) -> dict[str, Tensor]:
    """The inputs of one document."""
    own = {}
    for given in mixer.inputs:
        if given.name not in inputs:
            continue
        tensor = cut(mixer, given.layout, inputs[given.name], edges, number, sizes)
        if given.name in per_document:
            place = given.layout.index(_BATCH)
            shape = list(tensor.shape)
            shape[place] = sizes["B"]
            tensor = tensor.narrow(place, number, 1).expand(shape)
        own[given.name] = tensor
    return own


def _places(mixer: Mixer, layout: Layout, edges: Edges) -> dict[int, str]:
    """The axes of a tensor that documents lie along, and whose boundaries count there."""
    families = {
        place: mixer.sequence(product[0]) or product[0]
        for place, product in enumerate(layout)
        if product
    }
    return {place: family for place, family in families.items() if family in edges}


def cut(
    mixer: Mixer,
    layout: Layout,
    tensor: Tensor,
    edges: Edges,
    number: int,
    sizes: Mapping[str, int],
) -> Tensor:
    """One document of a tensor; where a product has the axis, it is the outermost factor."""
    for place, family in _places(mixer, layout, edges).items():
        (inner,) = shape_of((layout[place][1:],), sizes)
        start, end = (edge * inner for edge in list(pairwise(edges[family]))[number])
        tensor = tensor.narrow(place, start, end - start)
    return tensor


__all__ = ["check_documents", "cut", "one_by_one", "row_sizes"]
