"""Backends against the float64 reference, at sizes and inputs where kernels tend to be wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backends.reference.evaluate import run
from ..ir.binding import Number
from ..ir.mixer import Mixer
from .sampling import VerificationCase, sample_inputs, verification_cases
from .tolerances import error_limit, error_of

# Runs a mixer on tensors with the caller's params; gives every output by name.
Runner = Callable[[Mixer, Mapping[str, Tensor], Mapping[str, Number]], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Case:
    """What one backend made of one trial; ``message`` is empty where it was right.

    ``error`` and ``limit`` are those of the output that came closest to its limit, or furthest
    beyond; see ``tolerances``.
    """

    backend: str
    dtype: str
    sizes: Mapping[str, int]
    error: float
    limit: float
    message: str = ""
    name: str = ""

    @property
    def ok(self) -> bool:
        """Whether the backend was right."""
        return not self.message


def verify(
    mixer: Mixer,
    runners: Mapping[str, Runner],
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    params: Mapping[str, Number] = {},
    *,
    cases: Iterable[VerificationCase] | None = None,
    device: str | torch.device = "cpu",
) -> list[Case]:
    """Run every backend on every trial in every precision and compare with the reference.

    Args:
        runners: backends by name. One that raises, or gives outputs of other names, shapes or
            dtypes, has failed the trial; the case's message says how.
        dtypes: the precisions of the inputs; the reference computes from the rounded inputs.
        cases: the trials; ``verification_cases(mixer, params)`` where left out.
        device: where the inputs of the runners lie. The reference runs on the CPU.
    """
    trials = verification_cases(mixer, params) if cases is None else list(cases)
    return [
        case
        for dtype in dtypes
        for trial in trials
        for case in _verify_trial(mixer, runners, dtype, trial, device)
    ]


def _verify_trial(
    mixer: Mixer,
    runners: Mapping[str, Runner],
    dtype: torch.dtype,
    trial: VerificationCase,
    device: str | torch.device,
) -> Iterator[Case]:
    inputs = sample_inputs(
        mixer,
        trial.sizes,
        dtype,
        trial.seed,
        absent=trial.absent,
        strided=trial.strided,
        scale=trial.scale,
        nothing=trial.nothing,
        strong=trial.strong,
        params=trial.params,
    )
    with torch.no_grad():
        reference = run(mixer, inputs, trial.params)
        pytorch = run(mixer, inputs, trial.params, dtype=dtype)
        moved = {name: _moved(tensor, device) for name, tensor in inputs.items()}
        limits = error_limits(dtype, pytorch, reference)
        for backend, runner in runners.items():
            error, limit, message = compare(
                runner, mixer, moved, trial.params, dtype, reference, limits
            )
            yield Case(backend, _name(dtype), dict(trial.sizes), error, limit, message, trial.name)


def error_limits(
    dtype: torch.dtype, pytorch: Mapping[str, Tensor], reference: Mapping[str, Tensor]
) -> dict[str, float]:
    """The limit of every output, from what plain PyTorch makes of it in ``dtype``."""
    return {
        name: error_limit(dtype, error_of(pytorch[name], reference[name])) for name in reference
    }


def compare(
    runner: Runner,
    mixer: Mixer,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Number],
    dtype: torch.dtype,
    reference: Mapping[str, Tensor],
    limits: Mapping[str, float],
) -> tuple[float, float, str]:
    """Run ``mixer`` and compare: error, limit and message of the worst output.

    The message is empty where all is right; whatever ``runner`` raises is a failure with a message.
    """
    nothing = max(limits.values())
    try:
        results = runner(mixer, inputs, params)
    except Exception as failure:  # whatever a backend raises is its failure
        text = str(failure).strip() or "no message"
        return math.inf, nothing, f"{type(failure).__name__}: {text}"
    if set(results) != set(reference):
        message = f"outputs {sorted(results)} instead of {sorted(reference)}"
        return math.inf, nothing, message
    worst = (0.0, nothing, "")
    for name, wanted in reference.items():
        found = (*_output_error(results[name], wanted, dtype), limits[name])
        error, message, limit = found
        if not message and not error <= limit:
            message = f"{name}: error {error:.3g}, limit {limit:.3g}"
        if (bool(message), error / limit) >= (bool(worst[2]), worst[0] / worst[1]):
            worst = (error, limit, message)
    return worst


def _output_error(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> tuple[float, str]:
    if found.shape != wanted.shape:
        return math.inf, f"shape {list(found.shape)} instead of {list(wanted.shape)}"
    # The log of a total may be wider than the inputs; nothing may be narrower.
    if wanted.is_floating_point() and found.dtype not in (dtype, torch.float32, torch.float64):
        return math.inf, f"dtype {_name(found.dtype)} instead of {_name(dtype)}"
    error = error_of(found, wanted.to(found.device))
    if math.isinf(error):
        return error, _first_mismatch(found, wanted)
    return error, ""


def _first_mismatch(found: Tensor, wanted: Tensor) -> str:
    """Where an infinity or a nan is in one result alone."""
    a = found.detach().to("cpu", torch.float64)
    b = wanted.to("cpu", torch.float64)
    wrong = ~((a == b) | (a.isnan() & b.isnan()) | (a.isfinite() & b.isfinite()))
    places = (wrong if wrong.any() else a != b).nonzero()
    place = tuple(int(n) for n in places[0])
    return f"{a[place].item():g} instead of {b[place].item():g} at {list(place)}"


def _moved(tensor: Tensor, device: str | torch.device) -> Tensor:
    """The tensor on a device with its strides: moving a view would make it contiguous."""
    if tensor.device == torch.device(device) or tensor.is_contiguous():
        return tensor.to(device)
    storage = torch.as_strided(
        tensor, (tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0
    )
    return torch.as_strided(
        storage.to(device), tensor.shape, tensor.stride(), tensor.storage_offset()
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
