"""Which backend runs a mixer on a device, and what runs it there."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal

from ..ir.binding import Number
from ..ir.errors import ArgumentError, UnsupportedError
from ..ir.mixer import Mixer
from .arguments import device_of
from .obstacles import warn_once

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..autotune.results.choice import TunedChoice

Backend = Literal["auto", "triton", "cpu", "interpreter", "reference"]
Chosen = Literal["triton", "cpu", "interpreter", "reference"]
# A few rows of so little are done before a second thread is awake.
ALONE_BYTES = 1 << 19
Runner = Callable[["Mapping[str, Tensor]", Mapping[str, Number]], "Mapping[str, Tensor]"]


def choose(backend: Backend, device: torch.device) -> Chosen:
    """The backend that runs tensors on ``device``; ArgumentError where the named one can't."""
    if backend == "auto":
        if device.type == "cuda":
            return "triton"
        if device.type == "cpu":
            return "cpu" if has_compiler() else "reference"
        raise ArgumentError(
            f"mixc has kernels for cuda and cpu, and the tensors are on {device}: move them, or "
            "load with backend='reference', which runs by torch wherever they are"
        )
    if backend == "triton" and device.type != "cuda":
        raise ArgumentError(
            f"backend 'triton' runs on a GPU, and the tensors are on {device}: move them, or load "
            "with backend='interpreter' or 'reference'"
        )
    if backend in ("cpu", "interpreter") and device.type != "cpu":
        raise ArgumentError(f"backend {backend!r} runs on the cpu, got tensors on {device}")
    return backend


@lru_cache(maxsize=1)
def has_compiler() -> bool:
    """Whether this machine can build kernels for its CPU; says it once where it can't."""
    from ..backends.cpu.build import find_compiler

    try:
        find_compiler()
    except UnsupportedError as error:
        warn_once(f"on the CPU mixc goes on with torch: {error}")
        return False
    return True


def kernel_runner(
    mixer: Mixer, chosen: Chosen, tuned: Mixer | None = None, few_rows: bool = False
) -> Runner:
    """The kernels of a mixer on a GPU, the CPU or in the interpreter.

    With ``tuned``, in the configuration that is stored for that mixer, where there is one.
    """
    from ..compiler import pipeline

    lower = partial(pipeline.lower, recurrence="loop") if few_rows else pipeline.lower
    if chosen == "cpu":
        from ..backends.cpu.run import CpuRunner

        alone = ALONE_BYTES if few_rows else 0
        return CpuRunner(mixer, lower, choose=_tuned_choice(tuned, "cpu", mixer), alone_bytes=alone)
    if chosen == "interpreter":
        use_interpreter()
        tuned = None
    elif chosen == "triton":
        warn_of_assembler()
    from ..backends.triton.run import TritonRunner
    from ..compiler.schedules.configurations import bind_configuration

    kernels = TritonRunner(mixer, lower, _tuned_choice(tuned, "cuda", mixer), bind_configuration)
    return _quietly(kernels) if chosen == "interpreter" else kernels


def warn_of_assembler() -> None:
    """Say once that this GPU's kernels go through an assembler with a known fault."""
    import torch

    from ..backends.triton.assembler import assembler
    from ..backends.triton.device import architecture_of

    if torch.cuda.is_available() and torch.version.hip is None:
        concern = assembler().concern(architecture_of(torch.cuda.current_device()))
        if concern is not None:
            warn_once(concern)


def _quietly(kernels: Runner) -> Runner:
    """The interpreter computes both sides of a ``where``: numpy's warnings of it say nothing."""

    def run(given: Mapping[str, Tensor], params: Mapping[str, Number]) -> Mapping[str, Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return kernels(given, params)

    return run


def _tuned_choice(tuned: Mixer | None, device_type: str, runs: Mixer) -> TunedChoice | None:
    if tuned is None:
        return None
    from ..autotune.results.choice import TunedChoice

    return TunedChoice(tuned, device_type, runs=runs)


def by_reference(
    mixer: Mixer, given: Mapping[str, Tensor], params: Mapping[str, Number], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The reference, in float64 for float64 inputs and in float32 for all others."""
    import torch

    from ..backends.reference.evaluate import run

    precision = torch.float64 if dtype is torch.float64 else torch.float32
    device = device_of(given).type
    if not torch.amp.is_autocast_available(device):
        return run(mixer, given, params, dtype=precision)
    with torch.autocast(device, enabled=False):  # what it means has been done to the inputs
        return run(mixer, given, params, dtype=precision)


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
