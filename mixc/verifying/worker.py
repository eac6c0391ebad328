"""The process that makes the checks of ``mixc verify``: started by ``verification``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from random import Random

import torch
from torch import Tensor

from ..autotune.checking import checking
from ..autotune.checking.checking import Case, Runner
from ..autotune.checking.gradients import Measure, gradients_of, outputs_of
from ..autotune.checking.serving import serve
from ..autotune.results.devices import device_of_type
from ..autotune.search.kernels import configured_runner, gpu_space, space_of
from ..autotune.search.trial import Problem
from ..ir.binding import Number
from ..ir.knob import Configuration
from ..ir.mixer import Mixer
from ..runtime.backends import Chosen
from ..runtime.overrides import override
from ..runtime.running import by_backend, fixed_and_runtime
from .checks import Check
from .packed_case import packed_case
from .stepped_case import stepped_case

_INTERPRETED = "cuda:90"  # whose configurations the interpreter tries


def case_of(check: Check) -> Case | None:
    """What came of a check; None where there is nothing to check in that mode."""
    dtype = getattr(torch, check.dtype)
    match check.mode:
        case "packed":
            run, measure = default_runner(check.backend), _measure(check, dtype)
            given = (check.mixer, check.trial, check.backend, run, dtype, check.device)
            return packed_case(*given, measure)
        case "stepped":
            return stepped_case(check.mixer, check.trial, check.backend, dtype, check.device)
        case "whole":
            return _whole_case(check, dtype)


def _measure(check: Check, dtype: torch.dtype) -> Measure:
    return gradients_of(check.mixer, dtype, check.trial.seed) if check.grad else outputs_of


def _whole_case(check: Check, dtype: torch.dtype) -> Case | None:
    run, configuration = default_runner(check.backend), None
    if check.draw:
        configuration = drawn(check)
        if configuration is None:
            return None
        run = by_configuration(check, configuration)
    (found,) = checking.verify(
        check.mixer,
        {check.backend: run},
        [dtype],
        cases=[check.trial],
        device=check.device,
        measured=partial(_measure, check),
    )
    return replace(found, name=check.name, configuration=configuration)


def drawn(check: Check) -> Configuration | None:
    """The configuration of a check by its number: the same in every run."""
    problem = problem_of(check)
    if check.backend == "interpreter":
        space = gpu_space(problem.mixer, problem.sizes, problem.dtype, _INTERPRETED)
    else:
        device = device_of_type(problem.device)
        space = space_of(problem.mixer, problem.sizes, problem.dtype, device)
    return space.draw(Random(check.draw))


def problem_of(check: Check) -> Problem:
    """The kernels of a check as tuning has them."""
    fixed, runtime = fixed_and_runtime(check.mixer, check.trial.params)
    sizes = check.trial.sizes
    return Problem(override(check.mixer, fixed), check.dtype, check.device, sizes, sizes, runtime)


def by_configuration(check: Check, configuration: Configuration) -> Runner:
    """The kernels in a configuration, as ``checking`` calls them."""
    problem = problem_of(check)
    if check.backend == "interpreter":
        problem = replace(problem, device="cuda")
    kernels = configured_runner(problem, configuration)

    def run(
        mixer: Mixer, given: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> Mapping[str, Tensor]:
        return kernels(given, fixed_and_runtime(mixer, params)[1])

    return run


def default_runner(backend: Chosen) -> Runner:
    """A backend in its default configuration, as ``checking`` calls it."""

    def run(
        mixer: Mixer, given: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> Mapping[str, Tensor]:
        return by_backend(mixer, given, params, backend)

    return run


def answer(check: Check) -> Case | None:
    """The case of a check, whatever happens on the way short of the end of the process."""
    try:
        return case_of(check)
    except Exception as failure:  # of the reference, or of the sampling
        finding = checking.failed(failure)
        return Case.of(finding, check.backend, check.dtype, check.trial.sizes, check.name)


def main() -> None:
    """Answer checks until the other end hangs up."""
    with torch.no_grad():
        serve(answer)


if __name__ == "__main__":
    main()
