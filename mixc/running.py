"""Which backend runs a call, and the call."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from .arguments import device_of, working_dtype
from .ir.binding import Number
from .ir.errors import ArgumentError, UnsupportedError
from .ir.mixer import Mixer
from .overrides import override
from .packing import document_tables

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .backends.triton.run import TritonRunner
    from .compiler.passes.pack_sequences import Packing

Backend = Literal["auto", "triton", "interpreter", "reference"]
Chosen = Literal["triton", "interpreter", "reference"]


class Execution:
    """A mixer on a backend; generated kernels are kept from call to call."""

    def __init__(self, mixer: Mixer, backend: Backend) -> None:
        """Nothing is generated before the first call."""
        self.mixer = mixer
        self.backend: Backend = backend
        self._packing: Packing | None = None
        self._runners: dict[bool, TritonRunner] = {}

    def __call__(
        self,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        cu_seqlens: Tensor | Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The outputs by name, real ones in the dtype of the real inputs.

        Raises ArgumentError where shapes, dtypes, devices or the backend don't fit.
        """
        chosen = choose(self.backend, device_of(tensors))
        dtype = working_dtype(self.mixer, tensors)
        given, mixer = dict(tensors), self.mixer
        if cu_seqlens is not None:
            packed = self._packed()
            given |= document_tables(packed, mixer, cu_seqlens, tensors, params)
            mixer = packed.mixer
        if chosen == "reference":
            results = by_reference(mixer, given, params, dtype)
        else:
            refuse_gradients(given)
            results = self._runner(mixer, chosen)(given, params)
        real = {name for name, result in results.items() if result.is_floating_point()}
        return {n: result.to(dtype) if n in real else result for n, result in results.items()}

    def _packed(self) -> Packing:
        from .compiler.passes.pack_sequences import packing

        if self._packing is None:
            self._packing = packing(self.mixer)
        return self._packing

    def _runner(self, mixer: Mixer, chosen: Chosen) -> TritonRunner:
        packed = mixer is not self.mixer
        if packed not in self._runners:
            self._runners[packed] = triton_runner(mixer, chosen)
        return self._runners[packed]


def triton_runner(mixer: Mixer, chosen: Chosen) -> TritonRunner:
    """The kernels of a mixer, to run on a GPU or in the interpreter."""
    if chosen == "interpreter":
        use_interpreter()
    from .backends.triton.run import TritonRunner
    from .compiler.pipeline import lower

    return TritonRunner(mixer, lower)


def by_backend(
    mixer: Mixer, given: Mapping[str, Tensor], params: Mapping[str, Number], chosen: Chosen
) -> dict[str, Tensor]:
    """One run with all params set, in the dtypes that the backend itself gives."""
    if chosen == "reference":
        return by_reference(mixer, given, params, working_dtype(mixer, given))
    runtime = {p.name: params[p.name] for p in mixer.params if p.runtime and p.name in params}
    fixed = {name: value for name, value in params.items() if name not in runtime}
    return triton_runner(override(mixer, fixed), chosen)(given, runtime)


def choose(backend: Backend, device: torch.device) -> Chosen:
    """The backend that runs tensors on ``device``; ArgumentError where the named one can't."""
    if backend == "auto":
        return "triton" if device.type == "cuda" else "reference"
    if backend == "triton" and device.type != "cuda":
        raise ArgumentError(
            f"backend 'triton' runs on a GPU, and the tensors are on {device}: move them, or load "
            "with backend='interpreter' or 'reference'"
        )
    if backend == "interpreter" and device.type != "cpu":
        raise ArgumentError(f"backend 'interpreter' runs on the cpu, got tensors on {device}")
    return backend


def by_reference(
    mixer: Mixer, given: Mapping[str, Tensor], params: Mapping[str, Number], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The reference, in float64 for float64 inputs and in float32 for all others."""
    import torch

    from .backends.reference.evaluate import run

    precision = torch.float64 if dtype is torch.float64 else torch.float32
    return run(mixer, given, params, dtype=precision)


def refuse_gradients(given: Mapping[str, Tensor]) -> None:
    """Kernels have no backward pass yet: say so, rather than return a constant."""
    import torch

    wanting = [name for name, tensor in given.items() if tensor.requires_grad]
    if wanting and torch.is_grad_enabled():
        raise UnsupportedError(
            f"{wanting[0]} requires a gradient, and kernels are forward only so far: call under "
            "torch.no_grad(), or load with backend='reference', which is differentiable"
        )


def use_interpreter() -> None:
    """Make triton interpret kernels; possible until triton is imported."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return
    if "triton.language" in sys.modules:
        raise ArgumentError(
            "backend 'interpreter': triton is imported already, as a compiler; set "
            "TRITON_INTERPRET=1 before Python starts"
        )
    os.environ["TRITON_INTERPRET"] = "1"
