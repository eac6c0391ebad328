"""The process that runs trials: build, check, then time. Started by ``trial.TrialWorker``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ...ir.binding import Number
from ...ir.knob import Configuration
from ...ir.mixer import Mixer
from ..bench.measuring import Call, Clock, timing_of
from ..bench.timed_inputs import left_out, timed_inputs
from ..checking.checking import Case, drawn, verify
from ..checking.limits import LARGEST_LIMIT
from ..checking.passes import Origin, backward_inputs, in_backward
from ..checking.poison import poisoned_memory
from ..checking.sampling import VerificationCase
from ..checking.serving import serve
from .kernels import Runner, configured_runner
from .trial import Job, Outcome, Problem

_WARM_CALLS = 2
_WARM_S = 0.2
_RACE = 3  # times as long as a trial are the last few timed, which differ least


class Trials:
    """Runs jobs; inputs of the problem at hand are kept from one to the next."""

    def __init__(self) -> None:
        """Nothing is made before the first job."""
        self._inputs: tuple[object, dict[str, Tensor]] | None = None
        self._clocks: dict[str, Clock] = {}

    def run(self, job: Job) -> list[Outcome]:
        """An outcome per configuration."""
        made = [self._checked(job, configuration) for configuration in job.configurations]
        ready = [place for place, (outcome, _) in enumerate(made) if outcome.status == "ok"]
        outcomes = [outcome for outcome, _ in made]
        if ready:
            runners = [made[place][1] for place in ready]
            timed = self._timed(job, [r for r in runners if r is not None])
            for place, outcome in zip(ready, timed, strict=True):
                outcomes[place] = _joined(outcomes[place], outcome)
        return outcomes

    def _checked(self, job: Job, configuration: Configuration) -> tuple[Outcome, Runner | None]:
        start = time.monotonic()
        try:
            runner = configured_runner(job.problem, configuration)
            case = check(job.problem, runner, job.seed)
            if case.ok:
                self._first_call(job.problem, runner)
        except Exception as error:  # a build that is refused, or a bug: the trial's failure
            return Outcome("failed", f"{type(error).__name__}: {error}"), None
        build_s = time.monotonic() - start
        message = "" if case.ok else f"{case.status}: {case.message}"
        found = Outcome("failed", message, None, 0.0, case.error, case.limit, build_s)
        return (replace(found, status="ok"), runner) if case.ok else (found, None)

    def _first_call(self, problem: Problem, runner: Runner) -> None:
        """At the timed sizes no reference is at hand; what was not written shows as nan."""
        with poisoned_memory():
            results = runner(self._tensors(problem), problem.params)
        for name, result in results.items():
            if result.is_floating_point() and bool(result.isnan().any()):
                raise ArithmeticError(f"{name} has nans at the timed sizes")

    def _timed(self, job: Job, runners: list[Runner]) -> list[Outcome]:
        problem = job.problem
        tensors = self._tensors(problem)
        if problem.device not in self._clocks:
            self._clocks[problem.device] = Clock(problem.device)
        clock = self._clocks[problem.device]
        calls = [partial(runner, tensors, problem.params) for runner in runners]
        warm_up(calls)
        if job.hopeless_us is not None:
            first_us = min(clock.once(calls[0]) for _ in range(2))
            if first_us > job.hopeless_us:
                message = f"given up: {first_us:,.0f} us at first, hopeless"
                return [Outcome("hopeless", message, first_us)]
        longer = _RACE if len(calls) > 1 else 1
        turns = clock.interleaved(calls, alternating=True, longer=longer)
        return [_outcome(times) for times in turns]

    def _tensors(self, problem: Problem) -> dict[str, Tensor]:
        key = (problem.mixer.name, problem.dtype, tuple(problem.sizes.items()), problem.device)
        if self._inputs is None or self._inputs[0] != key:
            self._inputs = (key, tensors_of(problem))
        return self._inputs[1]


def tensors_of(problem: Problem) -> dict[str, Tensor]:
    """What a problem is timed on; of a backward pass, what kernels make of a forward pass."""
    if problem.origin is None:
        return _timed_inputs(problem)
    own = replace(
        problem,
        mixer=problem.origin.derivative.forward,
        dtype=problem.origin.dtype,
        sizes=problem.origin.sizes,
    )
    given = _timed_inputs(own)
    made = configured_runner(own, {})(given, problem.params)
    return in_backward(problem.origin, {**given, **made}, getattr(torch, problem.dtype), seed=0)


def _timed_inputs(problem: Problem) -> dict[str, Tensor]:
    dtype = getattr(torch, problem.dtype)
    return timed_inputs(
        problem.mixer, problem.sizes, dtype, device=problem.device, params=problem.params
    )


def warm_up(calls: Sequence[Call]) -> None:
    """Run calls in turns, twice at least; those of a race until clocks have settled."""
    end = time.monotonic() + (_WARM_S if len(calls) > 1 else 0.0)
    turns = 0
    while turns < _WARM_CALLS or time.monotonic() < end:
        for call in calls:
            call()
        turns += 1


def _outcome(times_us: Sequence[float]) -> Outcome:
    timing = timing_of(times_us)
    return Outcome("ok", "", timing.time_us, timing.spread_us, times_us=tuple(times_us))


def check(problem: Problem, runner: Runner, seed: int) -> Case:
    """The kernels against the float64 reference on random data."""

    def kernels(
        _: Mixer, tensors: Mapping[str, Tensor], params: Mapping[str, Number]
    ) -> Mapping[str, Tensor]:
        return runner(tensors, params)

    origin, absent = problem.origin, left_out(problem.mixer)
    case = VerificationCase("tuning", problem.checked, problem.params, absent, seed=seed)
    (found,) = verify(
        problem.mixer,
        {"kernels": kernels},
        [getattr(torch, problem.dtype)],
        problem.params,
        cases=[case],
        device=problem.device,
        draw=drawn if origin is None else partial(_backward_trial, origin),
    )
    return capped(found)


def _backward_trial(
    origin: Origin, _: Mixer, trial: VerificationCase, dtype: torch.dtype
) -> Mapping[str, Tensor]:
    """The inputs of a backward pass, of a forward pass at the sizes of a check."""
    forward = origin.derivative.forward
    own = replace(trial, sizes=origin.checked, absent=left_out(forward))
    given = drawn(forward, own, getattr(torch, origin.dtype))
    return backward_inputs(origin, given, trial.params, dtype, trial.seed)


def capped(case: Case) -> Case:
    """The case with a limit that still tells right from wrong; see ``limits``."""
    cap = LARGEST_LIMIT[case.dtype]
    if case.limit <= cap:
        return case
    capped_case = replace(case, limit=cap)
    if case.message or case.error <= cap:
        return capped_case
    message = f"error {case.error:.3g}, limit {cap:.3g}"
    return replace(capped_case, message=message, status="wrong")


def _joined(checked: Outcome, timed: Outcome) -> Outcome:
    return replace(timed, error=checked.error, limit=checked.limit, build_s=checked.build_s)


def main() -> None:
    """Answer jobs until the other end hangs up."""
    trials = Trials()
    with torch.no_grad():
        serve(trials.run)


if __name__ == "__main__":
    main()
