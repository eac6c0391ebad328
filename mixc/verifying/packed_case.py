"""One more case for ``verify``: documents end to end against each document alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..ir.errors import UnsupportedError
from ..ir.mixer import Mixer
from ..runtime.documents import Edges, one_by_one
from ..runtime.overrides import override
from ..runtime.packing import document_edges, document_tables

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..autotune.checking.checking import Case, Finding, Runner
    from ..autotune.checking.gradients import Measure, Run
    from ..autotune.checking.sampling import VerificationCase


def packed_case(
    mixer: Mixer,
    trial: VerificationCase,
    backend: str,
    runner: Runner,
    dtype: torch.dtype,
    device: str = "cpu",
    measure: Measure | None = None,
) -> Case | None:
    """Three documents, one of them empty, by ``runner``; the reference takes them one by one.

    ``trial`` gives the params, and how long the documents are together. Last states, and what
    is made of them, are left out. None where what is left has one value for a whole sequence, so
    that no row can hold several documents. ``measure``: what is compared, the outputs by default.
    """
    from ..autotune.checking.checking import Case, compare
    from ..autotune.checking.gradients import outputs_of
    from ..autotune.checking.sampling import sample_inputs
    from ..compiler.mixers.pack.pack_sequences import last_outputs, packing

    fixed = override(mixer, dict(trial.params))
    try:
        last = last_outputs(fixed)
        fixed = replace(fixed, outputs=tuple(o for o in fixed.outputs if o not in last))
        packed = packing(fixed)
    except UnsupportedError:
        return None
    if not fixed.outputs:
        return None
    cu_seqlens = {axis: _thirds(trial.sizes[axis]) for axis in packed.axes}
    edges = document_edges(packed, fixed, cu_seqlens, {}, trial.sizes)
    sizes = {dim: _total(fixed, dim, size, edges) for dim, size in trial.sizes.items()}
    if packed.per_document:
        sizes["B"] = 1
    inputs = sample_inputs(fixed, sizes, dtype, trial.seed)
    of_documents = sample_inputs(fixed, {**sizes, "B": 3}, dtype, trial.seed)
    inputs |= {name: of_documents[name] for name in packed.per_document}
    tables = document_tables(packed, fixed, cu_seqlens, inputs)
    placed = {name: tensor.to(device) for name, tensor in {**inputs, **tables}.items()}

    def by_documents(alone: Run) -> Run:
        return lambda given: one_by_one(fixed, given, edges, sizes, packed.per_document, alone)

    def by_kernels(limits: Mapping[str, float], exact: Mapping[str, Tensor]) -> Finding:
        own = measure or outputs_of
        return compare(runner, packed.mixer, placed, {}, dtype, exact, limits, own)

    found = _found(fixed, inputs, dtype, measure, by_documents, by_kernels)
    return Case.of(found, backend, str(dtype).removeprefix("torch."), sizes, "packed")


def _found(
    mixer: Mixer,
    inputs: Mapping[str, Tensor],
    dtype: torch.dtype,
    measure: Measure | None,
    by_documents: Callable[[Run], Run],
    by_kernels: Callable[[Mapping[str, float], Mapping[str, Tensor]], Finding],
) -> Finding:
    """What is found of kernels, the reference having made each document by itself."""
    import torch

    from ..autotune.checking.checking import (
        by_other_draws,
        error_limits,
        excused,
        usual_errors,
    )
    from ..autotune.checking.gradients import outputs_of
    from ..autotune.checking.one_thread import one_thread
    from ..autotune.checking.rounding import near, rounding_errors
    from ..backends.reference.evaluate import run

    compared = measure or outputs_of

    def by_reference(precision: torch.dtype, draw: int = 0) -> Mapping[str, Tensor]:
        alone = by_documents(lambda own: run(mixer, own, dtype=precision))
        with one_thread():
            return compared(alone, near(inputs, draw))

    def by_rounding(draw: int) -> Mapping[str, float]:
        if measure is None:
            return {}
        return rounding_errors(mixer, inputs, {}, dtype, compared, draw, by_documents)

    with torch.no_grad():
        exact, plain = by_reference(torch.float64), by_reference(dtype)
        limits = error_limits(dtype, plain, exact, gradients=measure is not None)
        found = by_kernels(limits, exact)
        if found.status == "wrong":
            usual = partial(usual_errors, dtype, by_reference, measure is not None)
            found = by_other_draws(
                dtype, limits, by_rounding, usual, lambda own: by_kernels(own, exact)
            )
        if found.status == "wrong":
            found = excused(found, dtype, exact, by_reference(torch.float32))
    return found


def _thirds(length: int) -> Tensor:
    import torch

    return torch.tensor([0, length // 3, length // 3, length], dtype=torch.int32)


def _total(mixer: Mixer, dim: str, size: int, edges: Edges) -> int:
    along = edges.get(mixer.sequence(dim) or dim)
    return size if along is None else along[-1]
