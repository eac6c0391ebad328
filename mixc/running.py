"""Which backend runs a call, and the call."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from .arguments import device_of, working_dtype
from .ir.binding import Number, bind_sizes, without_inputs
from .ir.errors import ArgumentError, UnsupportedError
from .ir.mixer import Mixer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .backends.triton.run import TritonRunner

Backend = Literal["auto", "triton", "interpreter", "reference"]
Chosen = Literal["triton", "interpreter", "reference"]


class Execution:
    """A mixer on a backend; generated kernels are kept from call to call."""

    def __init__(self, mixer: Mixer, backend: Backend) -> None:
        """Nothing is generated before the first call."""
        self.mixer = mixer
        self.backend: Backend = backend
        self._runners: dict[frozenset[str], TritonRunner] = {}

    def __call__(
        self,
        tensors: Mapping[str, Tensor],
        params: Mapping[str, Number],
        cu_seqlens: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The outputs by name, in the dtype of the first real input.

        Raises ArgumentError where shapes, devices or the backend don't fit.
        """
        given = dict(tensors)
        if cu_seqlens is not None:
            given["cu_seqlens"] = cu_seqlens
        chosen = choose(self.backend, device_of(given))
        mixer = self._variant(given)
        bind_sizes(mixer, {name: tuple(tensor.shape) for name, tensor in given.items()})
        dtype = working_dtype(mixer, given)
        if chosen == "reference":
            results = by_reference(mixer, given, params, dtype)
        else:
            results = self._by_triton(mixer, given, params, chosen)
        return {
            name: result.to(dtype) if result.is_floating_point() else result
            for name, result in results.items()
        }

    def _variant(self, given: Mapping[str, Tensor]) -> Mixer:
        """The mixer without the inputs that are not given; packed where cu_seqlens is."""
        mixer = self.mixer
        if "cu_seqlens" in given:
            from .compiler.passes.pack_sequences import pack_sequences

            mixer = pack_sequences(mixer)
        return without_inputs(mixer, {entry.name for entry in mixer.inputs} - given.keys())

    def _by_triton(
        self,
        mixer: Mixer,
        given: Mapping[str, Tensor],
        params: Mapping[str, Number],
        chosen: Chosen,
    ) -> dict[str, Tensor]:
        refuse_gradients(given)
        if chosen == "interpreter":
            use_interpreter()
        from .backends.triton.run import TritonRunner

        key = frozenset(given)
        if key not in self._runners:
            self._runners[key] = TritonRunner(mixer)
        return self._runners[key](given, params)


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
    mixer: Mixer,
    given: Mapping[str, Tensor],
    params: Mapping[str, Number],
    dtype: torch.dtype,
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
