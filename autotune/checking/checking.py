"""Backends against the float64 reference, at sizes and inputs where kernels tend to be wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ...backends.reference.evaluate import run
from ...ir.binding import Number
from ...ir.errors import DefectError, MixcError, VerificationError
from ...ir.mixer import Mixer
from .garbage import with_garbage
from .gradients import Measure, outputs_of
from .one_thread import one_thread
from .poison import poisoned_memory
from .rounding import near, rounding_errors, wider_limits
from .sampling import VerificationCase, sample_inputs, verification_cases
from .tolerances import error_limit, error_of, errors_of, scales_of

# Runs a mixer on tensors with the caller's params; gives every output by name.
Runner = Callable[[Mixer, Mapping[str, Tensor], Mapping[str, Number]], Mapping[str, Tensor]]
# The inputs of a trial in a precision.
Draw = Callable[[Mixer, VerificationCase, torch.dtype], Mapping[str, Tensor]]


# What a backend made of a trial:
# right; wrong: other numbers than the reference's; unsupported: it says that it can't, and why;
# diverges: so do the equations themselves, in the precision at hand; not compiled, crashed: a
# defect of mixc; stopped: out of time or memory.
Status = Literal["right", "wrong", "unsupported", "diverges", "not compiled", "crashed", "stopped"]
DEFECTS: frozenset[Status] = frozenset({"not compiled", "crashed"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Error, limit and status of the output that came closest to its limit, or furthest beyond.

    ``message`` is empty where all is right; see ``tolerances`` for error and limit.
    """

    error: float
    limit: float
    message: str = ""
    status: Status = "right"


@dataclass(frozen=True, slots=True)
class Case:
    """What one backend made of one trial; ``message`` is empty where it was right."""

    backend: str
    dtype: str
    sizes: Mapping[str, int]
    error: float
    limit: float
    message: str = ""
    name: str = ""
    status: Status = "right"
    configuration: Mapping[str, int] | None = None  # None: the default as shipped

    @classmethod
    def of(
        cls, finding: Finding, backend: str, dtype: str, sizes: Mapping[str, int], name: str
    ) -> Case:
        """The case of a finding."""
        known = finding.error, finding.limit, finding.message, name, finding.status
        return cls(backend, dtype, dict(sizes), *known)

    @property
    def ok(self) -> bool:
        """Whether the backend was right."""
        return self.status == "right"


def drawn(mixer: Mixer, trial: VerificationCase, dtype: torch.dtype) -> Mapping[str, Tensor]:
    """The inputs that a trial asks for, those without meaning among them."""
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
    return with_garbage(mixer, inputs, trial.seed) if trial.garbage else inputs


def verify(
    mixer: Mixer,
    runners: Mapping[str, Runner],
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    params: Mapping[str, Number] = {},
    *,
    cases: Iterable[VerificationCase] | None = None,
    device: str | torch.device = "cpu",
    measured: Callable[[torch.dtype], Measure] = lambda dtype: outputs_of,
    draw: Draw = drawn,
) -> list[Case]:
    """Run every backend on every trial in every precision and compare with the reference.

    Args:
        runners: backends by name. One that raises, or gives outputs of other names, shapes or
            dtypes, has failed the trial; the case's message says how.
        dtypes: the precisions of the inputs; the reference computes from the rounded inputs.
        cases: the trials; ``verification_cases(mixer, params)`` where left out.
        device: where the inputs of the runners lie. The reference runs on the CPU.
        measured: what of a run is compared in a precision, its outputs if it is left out.
        draw: makes the inputs of a trial.
    """
    trials = verification_cases(mixer, params) if cases is None else list(cases)
    return [
        case
        for dtype in dtypes
        for trial in trials
        for case in _verify_trial(
            mixer, runners, dtype, trial, device, measured(dtype), draw(mixer, trial, dtype)
        )
    ]


def _verify_trial(
    mixer: Mixer,
    runners: Mapping[str, Runner],
    dtype: torch.dtype,
    trial: VerificationCase,
    device: str | torch.device,
    measure: Measure,
    inputs: Mapping[str, Tensor],
) -> Iterator[Case]:
    def by_reference(precision: torch.dtype, draw: int = 0) -> Mapping[str, Tensor]:
        given = near(inputs, draw)
        with one_thread():
            return measure(lambda own: run(mixer, own, trial.params, precision), given)

    def by_rounding(draw: int) -> Mapping[str, float]:
        if measure is outputs_of:
            return {}
        return rounding_errors(mixer, inputs, trial.params, dtype, measure, draw)

    with torch.no_grad():
        reference, pytorch = by_reference(torch.float64), by_reference(dtype)
        moved = {name: _moved(tensor, device) for name, tensor in inputs.items()}
        limits = error_limits(dtype, pytorch, reference, gradients=measure is not outputs_of)
        for backend, runner in runners.items():

            def compared(limits: Mapping[str, float], runner: Runner = runner) -> Finding:
                given = (moved, trial.params, dtype, reference, limits, measure)
                return compare(runner, mixer, *given)

            found = compared(limits)
            if found.status == "wrong":
                usual = partial(usual_errors, dtype, by_reference, measure is not outputs_of)
                found = by_other_draws(dtype, limits, by_rounding, usual, compared)
            if found.status == "wrong":
                found = excused(found, dtype, reference, by_reference(torch.float32))
            yield Case.of(found, backend, _name(dtype), trial.sizes, trial.name)


def error_limits(
    dtype: torch.dtype,
    pytorch: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    gradients: bool = False,
) -> dict[str, float]:
    """The limit of every output, or gradient, from what plain PyTorch makes of it in ``dtype``."""
    errors = errors_of(dtype, pytorch, reference, gradients)
    return {name: error_limit(dtype, error) for name, error in errors.items()}


def usual_errors(
    dtype: torch.dtype,
    by_reference: Callable[[torch.dtype, int], Mapping[str, Tensor]],
    gradients: bool,
    draw: int,
) -> Mapping[str, float]:
    """The error of plain PyTorch on other inputs, close to those of a trial; none for draw 0."""
    if draw == 0:
        return {}
    plain, exact = by_reference(dtype, draw), by_reference(torch.float64, draw)
    return errors_of(dtype, plain, exact, gradients)


def by_other_draws(
    dtype: torch.dtype,
    limits: Mapping[str, float],
    errors: Callable[[int], Mapping[str, float]],
    usual: Callable[[int], Mapping[str, float]],
    compared: Callable[[Mapping[str, float]], Finding],
) -> Finding:
    """A wrong result, ``compared`` by the limits of other draws where they are wider.

    ``errors``, ``usual``: as of ``rounding.wider_limits``.
    """
    for own in wider_limits(dtype, limits, errors, usual):
        found = compared(own)
        if found.status != "wrong":
            break
    return found


def compare(
    runner: Runner,
    mixer: Mixer,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Number],
    dtype: torch.dtype,
    reference: Mapping[str, Tensor],
    limits: Mapping[str, float],
    measure: Measure = outputs_of,
) -> Finding:
    """Run ``mixer`` and compare; whatever ``runner`` raises is a failure with a message.

    What no kernel writes is a nan, in fresh memory.
    """
    nothing = max(limits.values(), default=0.0)
    try:
        with poisoned_memory():
            results = measure(lambda given: runner(mixer, given, params), inputs)
    except Exception as failure:  # whatever a backend raises is its failure
        return failed(failure, nothing)
    if set(results) != set(reference):
        message = f"outputs {sorted(results)} instead of {sorted(reference)}"
        return Finding(math.inf, nothing, message, "wrong")
    worst = Finding(0.0, nothing)
    scales = scales_of(dtype, reference, gradients=measure is not outputs_of)
    for name, wanted in reference.items():
        error, message = _output_error(results[name], wanted, dtype, scales[name])
        limit = limits[name]
        if not message and not error <= limit:
            message = f"error {error:.3g}, limit {limit:.3g}"
        if (bool(message), error / limit) >= (bool(worst.message), worst.error / worst.limit):
            said = f"{name}: {message}" if message else ""
            worst = Finding(error, limit, said, "wrong" if message else "right")
    return worst


def failed(failure: Exception, limit: float = math.nan) -> Finding:
    """The finding where there are no results to compare."""
    return Finding(math.inf, limit, *_failure(failure))


def _failure(failure: Exception) -> tuple[str, Status]:
    """What an error says, and whether it is a no or a defect."""
    text = str(failure).strip() or "no message"
    named = f"{type(failure).__name__}: {text}"
    match failure:
        case DefectError() | VerificationError():
            return text, "not compiled"
        case MixcError():
            return text, "unsupported"
        case MemoryError() | torch.OutOfMemoryError():
            return named, "stopped"
        case RuntimeError() if "allocate memory" in text:  # torch, on a CPU
            return text.splitlines()[0], "stopped"
        case _ if type(failure).__module__.startswith("triton"):
            return named, "not compiled"
        case _:
            return named, "crashed"


def excused(
    found: Finding,
    dtype: torch.dtype,
    reference: Mapping[str, Tensor],
    single: Mapping[str, Tensor],
) -> Finding:
    """``diverges`` for a wrong result where the equations themselves leave the numbers there are.

    ``single``: what plain PyTorch makes in float32, which kernels compute in, of the same inputs.
    """
    for name, wanted in reference.items():
        if not wanted.is_floating_point():
            continue
        finite = wanted.isfinite()
        largest = float(wanted[finite].abs().max()) if finite.any() else 0.0
        too_large = largest > torch.finfo(dtype).max
        if wanted.isnan().any() or too_large or not torch.equal(single[name].isfinite(), finite):
            return replace(found, status="diverges", message=_advice(name, largest, found.message))
    return found


def _advice(name: str, largest: float, message: str) -> str:
    return (
        f"the equations themselves overflow on these random inputs: {name} has "
        f"nans, infinities or numbers as large as {largest:.1e}, whatever computes it; say where "
        "the values of an input lie, `g: {dims: [B, T], range: [-1, 0]}` (the kernels: "
        f"{message})"
    )


def _output_error(
    found: Tensor, wanted: Tensor, dtype: torch.dtype, scale: float
) -> tuple[float, str]:
    if found.shape != wanted.shape:
        return math.inf, f"shape {list(found.shape)} instead of {list(wanted.shape)}"
    # The log of a total may be wider than the inputs; nothing may be narrower.
    if wanted.is_floating_point() and found.dtype not in (dtype, torch.float32, torch.float64):
        return math.inf, f"dtype {_name(found.dtype)} instead of {_name(dtype)}"
    error = error_of(found, wanted.to(found.device), scale)
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
