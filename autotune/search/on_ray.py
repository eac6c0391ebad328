"""Trials as tasks of a Ray cluster: on each of its GPUs, or on each of its nodes, one at a time.

What a trial does is what it does on one machine: each place has a ``TrialWorker`` of its own, with
its limits on time and memory, so a kernel that crashes ends neither Ray's worker nor the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from ...ir.errors import ArgumentError, UnsupportedError
from ...ir.knob import Configuration
from ..results.devices import Device, device_of_type
from .kernels import Space, space_of
from .trial import Job, JobOf, Outcome, Problem, TrialWorker

Kind = Literal["cpu", "cuda"]


class _Place:
    """What an actor does; Ray makes one in a process of its own."""

    def __init__(self, time_limit_s: float) -> None:
        self._worker = TrialWorker(time_limit_s)

    def device(self, kind: Kind) -> Device:
        return device_of_type(kind)

    def space(self, problem: Problem, device: Device) -> Space:
        return space_of(problem.mixer, problem.sizes, problem.dtype, device)

    def run(self, job: Job) -> list[Outcome]:
        return self._worker.run(job)


class Cluster:
    """The places of a Ray cluster where trials of one kind of device run.

    Use as a context manager; places are given back at its end.
    """

    def __init__(self, address: str, kind: Kind, time_limit_s: float = 60.0) -> None:
        """``address`` is Ray's: of a head node, or ``auto`` for the one that is running here.

        Raises:
            UnsupportedError: Ray is not installed.
            ArgumentError: no cluster answers, or its places are of several kinds or none.
        """
        self._ray = _ray()
        try:
            self._ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            raise ArgumentError(f"no Ray cluster at {address!r}: {error}") from error
        self._places = [
            self._ray.remote(_Place).options(**options).remote(time_limit_s)
            for options in self._slots(kind)
        ]
        self.device = self._common_device(kind)

    def __enter__(self) -> Self:
        """Give the cluster itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the places, with what still runs there."""
        for place in self._places:
            self._ray.kill(place)

    @property
    def size(self) -> int:
        """How many trials run at once."""
        return len(self._places)

    def space(self, problem: Problem) -> Space:
        """The knobs of a problem's kernels on these devices."""
        found: Space = self._ray.get(self._places[0].space.remote(problem, self.device))
        return found

    def run(self, job: Job) -> list[Outcome]:
        """An outcome per configuration, all at one place: only so do their times compare."""
        found: list[Outcome] = self._ray.get(self._places[0].run.remote(job))
        return found

    def trying(self, job_of: JobOf) -> _TryingAtPlaces:
        """Carries out the trials of a search."""
        return _TryingAtPlaces(self._ray, self._places, job_of)

    def _slots(self, kind: Kind) -> list[dict[str, Any]]:
        """What each place takes: a GPU, or a whole node, all of whose cores a kernel uses."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        found: list[dict[str, Any]] = []
        for node in self._ray.nodes():
            has, where = node["Resources"], NodeAffinitySchedulingStrategy(node["NodeID"], False)
            if not node["Alive"]:
                continue
            if kind == "cuda":
                taken = {"num_cpus": 0, "num_gpus": 1, "scheduling_strategy": where}
                found += [taken] * int(has.get("GPU", 0))
            elif has.get("CPU", 0):
                found.append({"num_cpus": has["CPU"], "scheduling_strategy": where})
        if not found:
            raise ArgumentError(f"the Ray cluster has no node with a {kind} device")
        return found

    def _common_device(self, kind: Kind) -> Device:
        devices = self._ray.get([place.device.remote(kind) for place in self._places])
        if len({*devices}) > 1:
            names = ", ".join(sorted({device.name for device in devices}))
            self.__exit__()
            raise ArgumentError(
                f"the Ray cluster has several kinds of devices ({names}): times on one say nothing "
                "about another; `mixc tune --all --storage` on each machine is for these"
            )
        first: Device = devices[0]
        return first


class _TryingAtPlaces:
    """Trials at the places of a cluster; see ``Trying``."""

    def __init__(self, ray: Any, places: Sequence[Any], job_of: JobOf) -> None:
        self._ray, self._job_of = ray, job_of
        self._free = list(places)
        self._running: dict[Any, tuple[int, Any]] = {}
        self.at_once = len(places)

    def start(self, number: int, configuration: Configuration, best_us: float | None) -> None:
        """Send a job to a place that is free."""
        place = self._free.pop()
        task = place.run.remote(self._job_of(number, configuration, best_us))
        self._running[task] = number, place

    def ended(self) -> tuple[int, Outcome]:
        """Wait for a place; one that is lost with its node has failed its trial."""
        (task,), _ = self._ray.wait([*self._running], num_returns=1)
        number, place = self._running.pop(task)
        try:
            (outcome,) = self._ray.get(task)
        except self._ray.exceptions.RayActorError as error:
            self.at_once -= 1
            if not self.at_once:
                raise
            return number, Outcome("failed", f"Ray lost the place of this trial: {error}")
        self._free.append(place)
        return number, outcome


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UnsupportedError("Ray is not installed: pip install 'mixc[ray]'") from error
    return ray


__all__ = ["Cluster"]
