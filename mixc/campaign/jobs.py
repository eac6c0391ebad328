"""What is asked of a machine, in order: is the library right, then tuned, then how fast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, get_args

from .workloads import WORKLOADS, Workload

Kind = Literal["forward", "gradients", "tune", "bench", "train", "model"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Seconds: a spec compiles some dozens of kernels to be checked, each in several precisions.
_LIMITS: dict[Kind, float] = {
    "forward": 300, "gradients": 400, "tune": 150, "bench": 240, "train": 300, "model": 120,
}  # fmt: skip
_SUITE_S = 900.0  # peers compile for minutes on a CPU


@dataclass(frozen=True, slots=True)
class Job:
    """A ``mixc`` command with a limit in seconds; ``timed`` ones have the machine to themselves."""

    kind: Kind
    subject: str  # "gla", or "gla B=1 T=8192 H=96 D=128 E=128"
    arguments: tuple[str, ...]
    limit_s: float

    @property
    def key(self) -> str:
        """What its result is found by."""
        return f"{self.kind} {self.subject}"

    @property
    def timed(self) -> bool:
        """Whether it measures time."""
        return self.kind in ("tune", "bench", "train")


def campaign(
    specs: Sequence[str],
    kinds: Sequence[Kind] = KINDS,
    trials: int = 20,
    target: str = "cuda:90",
) -> list[Job]:
    """Every job: all specs right forward, then backward; then workloads, a shape of each at a time.

    Args:
        specs: the names of the library; those that are timed come first.
        kinds: which of the jobs.
        trials: for a tuning.
        target: what the model is asked about.
    """
    wanted = [work for work in WORKLOADS if work.spec in specs]
    first = list(dict.fromkeys(work.spec for work in wanted))
    ordered = [*first, *(spec for spec in specs if spec not in first)]
    jobs = [job for kind in ("forward", "gradients") for job in _checks(kind, ordered)]
    for work in _in_turns(wanted):
        jobs.extend(_timings(work, trials, target))
    return [job for job in jobs if job.kind in kinds]


def suite(specs: Sequence[str], device: str, dtype: str, grad: bool) -> list[Job]:
    """Every spec at its own sizes beside all of its peers; with ``grad``, training steps too.

    Args:
        specs: names of the library.
        device: torch's type, ``cpu`` or ``cuda``.
        dtype: the working precision, ``float32`` and the like.
        grad: whether forward and backward are timed after what runs forward.
    """
    jobs = []
    for kind in ("bench", "train") if grad else ("bench",):
        option = ("--grad",) if kind == "train" else ()
        for spec in specs:
            words = ("bench", spec, "--device", device, "--dtype", dtype, *option)
            jobs.append(Job(kind, f"{spec} {dtype}", (*words, "--peers", "--json"), _SUITE_S))
    return jobs


def _checks(kind: Literal["forward", "gradients"], specs: Sequence[str]) -> Iterator[Job]:
    option = ("--grad",) if kind == "gradients" else ()
    for spec in specs:
        arguments = ("verify", spec, "--backend", "triton", "--json", *option)
        yield Job(kind, spec, arguments, _LIMITS[kind])


def _in_turns(works: Sequence[Workload]) -> Iterator[Workload]:
    """The first shape of every spec, then the second, and so on."""
    by_spec: dict[str, list[Workload]] = {}
    for work in works:
        by_spec.setdefault(work.spec, []).append(work)
    for turn in zip_longest(*by_spec.values()):
        yield from (work for work in turn if work is not None)


def _timings(work: Workload, trials: int, target: str) -> Iterator[Job]:
    shape = work.arguments()
    commands: dict[Kind, tuple[str, ...]] = {
        "tune": ("tune", work.spec, "--device", "cuda", "--trials", str(trials), *shape),
        "bench": ("bench", work.spec, "--device", "cuda", "--peers", *shape),
        "train": ("bench", work.spec, "--device", "cuda", "--grad", "--peers", *shape),
        "model": ("compile", work.spec, "--target", target, "--explain", *shape),
    }
    for kind, command in commands.items():
        if kind != "train" or work.trained:
            yield Job(kind, work.subject(), (*command, "--json"), _LIMITS[kind])
