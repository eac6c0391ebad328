"""One more case for ``verify``: documents end to end against each document alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from .ir.binding import shape_of
from .ir.errors import UnsupportedError
from .ir.mixer import Layout, Mixer
from .overrides import override
from .packing import Edges, document_edges, document_tables

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .autotune.checking import Case, Runner
    from .autotune.sampling import VerificationCase


def packed_case(
    mixer: Mixer,
    trial: VerificationCase,
    backend: str,
    runner: Runner,
    dtype: torch.dtype,
    device: str = "cpu",
) -> Case | None:
    """Three documents, one of them empty, by ``runner``; the reference takes them one by one.

    ``trial`` gives the params, and how long the documents are together. None where the mixer has
    one value for a whole sequence, so that no row can hold several documents.
    """
    import torch

    from .autotune.checking import Case, compare, error_limits
    from .autotune.sampling import sample_inputs
    from .compiler.passes.pack_sequences import packing

    fixed = override(mixer, dict(trial.params))
    try:
        packed = packing(fixed)
    except UnsupportedError:
        return None
    cu_seqlens = {axis: _thirds(trial.sizes[axis]) for axis in packed.axes}
    edges = document_edges(packed, fixed, cu_seqlens, {})
    sizes = {dim: _total(fixed, dim, size, edges) for dim, size in trial.sizes.items()}
    inputs = sample_inputs(fixed, sizes, dtype, trial.seed)
    tables = document_tables(packed, fixed, cu_seqlens, inputs)
    placed = {name: tensor.to(device) for name, tensor in {**inputs, **tables}.items()}
    with torch.no_grad():
        exact = one_by_one(fixed, inputs, edges, sizes, torch.float64)
        plain = one_by_one(fixed, inputs, edges, sizes, dtype)
        limits = error_limits(dtype, plain, exact)
        found = compare(runner, packed.mixer, placed, {}, dtype, exact, limits)
    return Case(backend, str(dtype).removeprefix("torch."), sizes, *found, "packed")


def one_by_one(
    mixer: Mixer,
    inputs: Mapping[str, Tensor],
    edges: Edges,
    sizes: Mapping[str, int],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """The reference of each document, put together again; 0 between documents."""
    import torch

    from .backends.reference.evaluate import run

    made = {o.name: torch.zeros(shape_of(o.layout, sizes)) for o in mixer.outputs}
    for number in range(len(next(iter(edges.values()))) - 1):
        alone = {
            given.name: _cut(mixer, given.layout, inputs[given.name], edges, number, sizes)
            for given in mixer.inputs
        }
        results = run(mixer, alone, dtype=dtype)
        for output in mixer.outputs:
            result = results[output.name]
            whole = made[output.name] = made[output.name].to(result.dtype)
            _cut(mixer, output.layout, whole, edges, number, sizes).copy_(result)
    return made


def _thirds(length: int) -> Tensor:
    import torch

    return torch.tensor([0, length // 3, length // 3, length], dtype=torch.int32)


def _total(mixer: Mixer, dim: str, size: int, edges: Edges) -> int:
    along = edges.get(mixer.sequence(dim) or dim)
    return size if along is None else along[-1]


def _places(mixer: Mixer, layout: Layout, edges: Edges) -> dict[int, str]:
    """The axes of a tensor that documents lie along, and whose boundaries count there."""
    families = {
        place: mixer.sequence(product[0]) or product[0]
        for place, product in enumerate(layout)
        if product
    }
    return {place: family for place, family in families.items() if family in edges}


def _cut(
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
