"""What ``mixc verify`` checks, in processes of its own: a crash is a failed case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from ..ir.binding import Number, check_params
from ..ir.errors import ArgumentError, UnsupportedError
from ..ir.mixer import Mixer
from ..runtime.backends import Chosen
from .checks import Check, DType

if TYPE_CHECKING:
    from ..autotune.checking.checking import Case
    from ..autotune.checking.process import Worker
    from ..autotune.checking.sampling import VerificationCase

Effort = Literal["quick", "usual", "thorough"]
# Told of every case, and of how many checks are done.
Told = Callable[["Case", int], None]
# The interpreter has no bfloat16 product, and takes its time: one precision unless asked.
USUAL: Mapping[Chosen, tuple[DType, ...]] = {
    "interpreter": ("float32",),
    "reference": ("float32",),
    "cpu": ("float32", "bfloat16"),
    "triton": ("float32", "float16", "bfloat16"),
}
# How many configurations beside the default are tried.
_DRAWS: Mapping[Effort, int] = {"quick": 0, "usual": 2, "thorough": 6}
_INTERPRETED = 2  # of the published sizes: the interpreter is slow
_INTERPRETED_GRADIENTS = 2  # a backward pass takes it minutes: this many cases unless it is named
TIME_LIMIT_S = 120.0


def usual_backends() -> tuple[Chosen, ...]:
    """Triton where there is a GPU; elsewhere its interpreter, after native kernels if there can be.

    Native kernels need a C++ compiler.
    """
    import torch

    from ..backends.cpu.build import find_compiler

    if torch.cuda.is_available():
        return ("triton",)
    try:
        find_compiler()
    except UnsupportedError:
        return ("interpreter",)
    return ("cpu", "interpreter")


def planned_checks(
    mixer: Mixer,
    backends: Sequence[Chosen] = (),
    dtypes: Sequence[DType] = (),
    params: Mapping[str, Number] = {},
    sizes: Mapping[str, int] = {},
    limit: int | None = None,
    effort: Effort = "usual",
    grad: bool = False,
) -> list[Check]:
    """Every check of a mixer, by default on the backends that suit the machine.

    Args:
        mixer: as loaded; ``params`` are the values to verify at.
        sizes: verify at these too, the other dims at their usual sizes.
        limit: the number of cases per backend and precision, the most telling ones first;
            without it there are packed documents, segments, and sizes that people use too.
        effort: quick, without sizes that people use; thorough, at more of them.
        grad: compare gradients; in one pass, or for packed documents.

    Raises ArgumentError for params, sizes or backends that there are not, SpecError or
    ArgumentError for sizes that this machine has no room for.
    """
    import torch

    from ..autotune.checking.shapes import check_dims
    from ..runtime.room import refuse_what_is_too_large

    check_params(mixer, params)
    check_dims(mixer, sizes)
    trials, published = _trials(mixer, params, sizes, limit, effort)
    refuse_what_is_too_large(mixer, trials, sizes)
    found: list[Check] = []
    for backend in backends or usual_backends():
        if backend == "triton" and not torch.cuda.is_available():
            raise ArgumentError("backend 'triton' needs a GPU; 'interpreter' runs kernels without")
        for dtype in dtypes or USUAL[backend]:
            found += [Check(mixer, backend, dtype, trial) for trial in trials]
            if limit is None:
                found += _more(mixer, backend, dtype, trials, published, effort)
    return _of_gradients(found, bool(backends)) if grad else found


def left_out(checks: Sequence[Check], backends: Sequence[Chosen] = ()) -> str | None:
    """What is said of the checks of gradients that are not made unless ``backends`` names one."""
    if backends or not any(check.grad and check.backend == "interpreter" for check in checks):
        return None
    return (
        f"gradients by Triton's interpreter: at most the {_INTERPRETED_GRADIENTS} smallest cases "
        "of each spec; --backend interpreter makes them all"
    )


def _of_gradients(checks: Sequence[Check], chosen: bool) -> list[Check]:
    """The checks of gradients among ``checks``; the interpreter's smallest unless ``chosen``."""
    trained = [replace(check, grad=True) for check in checks if _is_trained(check)]
    if chosen:
        return trained
    slow = [check for check in trained if check.backend == "interpreter" and _elements(check)]
    kept = sorted(slow, key=_elements)[:_INTERPRETED_GRADIENTS]
    return [check for check in trained if check.backend != "interpreter" or check in kept]


def _elements(check: Check) -> int:
    """The positions that a check goes through, features included; packed, in three documents."""
    return math.prod(check.trial.sizes.values()) * (3 if check.mode == "packed" else 1)


def _is_trained(check: Check) -> bool:
    """Whether gradients are asked for: not across segments, nor in another configuration.

    Where rows see numbers that are not finite, the gradient of all that they see is none either.
    """
    return check.mode != "stepped" and not check.draw and not check.trial.garbage


def _trials(
    mixer: Mixer,
    params: Mapping[str, Number],
    sizes: Mapping[str, int],
    limit: int | None,
    effort: Effort,
) -> tuple[list[VerificationCase], list[VerificationCase]]:
    from ..autotune.checking import published
    from ..autotune.checking.sampling import verification_cases

    asked = replace(mixer, check=tuple(sizes.items())) if sizes else mixer
    trials = verification_cases(asked, params, limit)
    if limit is not None or effort == "quick":
        return trials, []
    chosen = published.THOROUGH if effort == "thorough" else published.USUAL
    return trials, published.published_cases(mixer, params, chosen)


def _more(
    mixer: Mixer,
    backend: Chosen,
    dtype: DType,
    trials: Sequence[VerificationCase],
    published: Sequence[VerificationCase],
    effort: Effort,
) -> Iterator[Check]:
    """Other ways to call the kernels, sizes that people use, and other configurations there."""
    strided = next((trial for trial in trials if trial.strided), trials[0])
    yield Check(mixer, backend, dtype, strided, "packed")
    yield Check(mixer, backend, dtype, strided, "stepped")
    slow = effort != "thorough" and backend in ("interpreter", "reference")
    for trial in published[:_INTERPRETED] if slow else published:
        # A thousand rows one by one, twice: in one precision.
        if effort == "thorough" or dtype == "float32" or "rows" not in trial.name:
            yield Check(mixer, backend, dtype, trial)
    if published and not slow and dtype == USUAL[backend][0] and backend != "reference":
        for draw in range(1, _DRAWS[effort] + 1):
            yield Check(mixer, backend, dtype, published[0], draw=draw)


class Verifier:
    """Makes checks in a process per backend; a new one takes the place of one that died.

    Use as a context manager; it serves any number of mixers.
    """

    def __init__(self, time_limit_s: float = TIME_LIMIT_S) -> None:
        """``time_limit_s`` is for one check."""
        self._limit_s = time_limit_s
        self._workers: dict[Chosen, Worker] = {}
        self._asked: dict[Chosen, int] = {}  # how many checks a process has answered

    def __enter__(self) -> Self:
        """Give the verifier itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        for worker in self._workers.values():
            worker.close()

    def run(self, checks: Sequence[Check], told: Told = lambda case, done: None) -> list[Case]:
        """A case per check, but for those that there is nothing to check in."""
        found: list[Case] = []
        for number, check in enumerate(checks, 1):
            case = self._case(check, found)
            if case is not None:
                told(case, number)
                found.append(case)
        return found

    def _case(self, check: Check, before: list[Case]) -> Case | None:
        """The case of a check; of one that brings a process down, in a process for itself.

        A kernel may overwrite memory so that a later case is the one to crash: where that is
        right by itself, the case ``before`` has crashed, or one of an earlier mixer.
        """
        asked = self._asked.get(check.backend, 0)
        case = self._once(check)
        if not asked or case is None or case.status != "crashed" or self._asked[check.backend]:
            return case
        alone = self._once(check)
        if alone is not None and not alone.ok:
            return alone
        blamed = [n for n, c in enumerate(before) if c.backend == check.backend][-1:]
        for place in blamed:
            late = f"{case.message}\n(in the next case, {check.name}, which is right by itself)"
            before[place] = replace(before[place], status=case.status, message=late)
        late = "right by itself; an earlier kernel of this process brought it down: "
        return alone if blamed else replace(case, message=f"{late}{case.message}")

    def _once(self, check: Check) -> Case | None:
        from ..autotune.checking.checking import Case, Finding
        from ..autotune.checking.process import WorkerDied

        try:
            case: Case | None = self._worker(check.backend).ask(check)
        except WorkerDied as death:
            self._asked[check.backend] = 0
            finding = Finding(math.inf, math.nan, str(death), death.fate)
            return Case.of(finding, check.backend, check.dtype, check.trial.sizes, check.name)
        self._asked[check.backend] = self._asked.get(check.backend, 0) + 1
        return case

    def _worker(self, backend: Chosen) -> Worker:
        from ..autotune.checking.process import Worker

        if backend not in self._workers:
            interpreted = {"TRITON_INTERPRET": "1"} if backend == "interpreter" else {}
            module = f"{__package__}.worker"
            self._workers[backend] = Worker(module, self._limit_s, interpreted)
        return self._workers[backend]


def verify_mixer(
    mixer: Mixer,
    backends: Sequence[Chosen] = (),
    dtypes: Sequence[DType] = (),
    params: Mapping[str, Number] = {},
    sizes: Mapping[str, int] = {},
    limit: int | None = None,
) -> list[Case]:
    """The cases of ``planned_checks``."""
    checks = planned_checks(mixer, backends, dtypes, params, sizes, limit)
    with Verifier() as verifier:
        return verifier.run(checks)


__all__ = ["Effort", "Verifier", "left_out", "planned_checks", "usual_backends", "verify_mixer"]
