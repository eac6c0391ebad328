"""Backends of this machine against the float64 reference: what ``mixc verify`` runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from .ir.binding import Number, check_params
from .ir.errors import ArgumentError, UnsupportedError
from .ir.mixer import Mixer
from .running import Chosen, by_backend

if TYPE_CHECKING:
    from .autotune.checking import Case, Runner

DType = Literal["float32", "float16", "bfloat16"]
# The interpreter has no bfloat16 product, and takes its time: one precision unless asked.
USUAL: Mapping[Chosen, tuple[DType, ...]] = {
    "interpreter": ("float32",),
    "reference": ("float32",),
    "cpu": ("float32", "bfloat16"),
    "triton": ("float32", "float16", "bfloat16"),
}


def usual_backends() -> tuple[Chosen, ...]:
    """Triton where there is a GPU; elsewhere its interpreter, after native kernels if there can be.

    Native kernels need a C++ compiler.
    """
    import torch

    from .backends.cpu.build import find_compiler

    if torch.cuda.is_available():
        return ("triton",)
    try:
        find_compiler()
    except UnsupportedError:
        return ("interpreter",)
    return ("cpu", "interpreter")


def verify_mixer(
    mixer: Mixer,
    backends: Sequence[Chosen] = (),
    dtypes: Sequence[DType] = (),
    params: Mapping[str, Number] = {},
    sizes: Mapping[str, int] = {},
    limit: int | None = None,
) -> list[Case]:
    """Every case of every backend, by default those that suit the machine.

    Args:
        mixer: as loaded; ``params`` are the values to verify at.
        sizes: verify at these too, the other dims at their usual sizes.
        limit: the number of cases per backend and precision, the most telling ones first;
            without it there is one of packed documents too.

    Raises ArgumentError for params, sizes or backends that there are not.
    """
    import torch

    from .autotune.checking import verify
    from .autotune.sampling import verification_cases
    from .packed_case import packed_case
    from .stepped_case import stepped_case

    check_params(mixer, params)
    check_sizes(mixer, sizes)
    asked = replace(mixer, check=tuple(sizes.items())) if sizes else mixer
    cases = verification_cases(asked, params, limit)
    found: list[Case] = []
    for backend in backends or usual_backends():
        if backend == "triton" and not torch.cuda.is_available():
            raise ArgumentError("backend 'triton' needs a GPU; 'interpreter' runs kernels without")
        precisions = [getattr(torch, name) for name in dtypes or USUAL[backend]]
        device = "cuda" if backend == "triton" else "cpu"
        run = backend_runner(backend)
        found += verify(mixer, {backend: run}, precisions, params, cases=cases, device=device)
        if limit is None:
            trial = next((case for case in cases if case.strided), cases[0])
            packed = (packed_case(mixer, trial, backend, run, d, device) for d in precisions)
            stepped = (stepped_case(mixer, trial, backend, d, device) for d in precisions)
            found += [case for case in (*packed, *stepped) if case is not None]
    return found


def backend_runner(backend: Chosen) -> Runner:
    """One backend as ``autotune.checking`` calls it."""
    return lambda mixer, tensors, params: by_backend(mixer, tensors, params, backend)


def check_sizes(mixer: Mixer, sizes: Mapping[str, int]) -> None:
    """Refuse sizes of dims that the mixer hasn't."""
    from .ir.binding import suggestion
    from .ir.optional import free_dims

    dims = sorted(free_dims(mixer))
    for dim in sizes:
        if dim not in dims:
            raise ArgumentError(f"{mixer.name} has no dim {dim!r}{suggestion(dim, dims)}")


def as_json(cases: Sequence[Case]) -> dict[str, Any]:
    """``{"ok": ..., "cases": [...]}``; an infinite error is null, a failed case has a message."""
    return {"ok": all(case.ok for case in cases), "cases": [_case(case) for case in cases]}


def _case(case: Case) -> dict[str, Any]:
    data = {
        "backend": case.backend,
        "dtype": case.dtype,
        "sizes": dict(case.sizes),
        "error": case.error if case.error < float("inf") else None,
        "limit": case.limit,
    }
    return data if case.ok else {**data, "message": case.message}
