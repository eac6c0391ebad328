"""What jobs found, a line of JSON each: a campaign goes on where the last piece of it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from ..ir.errors import ArgumentError
from .jobs import Job

# "cut": the piece ended before the job did, so it is made again.
Status = Literal["done", "failed", "timed out", "cut"]
_CUTS = 2  # a job that had a piece for itself and was cut again takes longer than a piece


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a campaign runs: results of two machines are never in one record."""

    device: str
    target: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: the answer of its command, cut down to what is reported."""

    status: Status
    seconds: float
    data: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""
    at: str = ""

    def now(self) -> Outcome:
        """The same, with the time."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return replace(self, at=at)


def this_machine(kind: str = "cuda") -> Machine:
    """The device of torch's type ``kind`` and what runs it.

    Raises ArgumentError where there is no GPU and one is meant.
    """
    import torch

    from ..autotune.results.devices import device_of_type

    if kind == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("a campaign needs a GPU; --dry-run lists its jobs without one")
    device = device_of_type(kind)
    return Machine(device.name, device.architecture, dict(_versions()))


def _versions() -> Iterator[tuple[str, str]]:
    for package in ("torch", "triton", "flash-linear-attention"):
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"


class Record:
    """The outcomes in a file; each is there before the next job starts."""

    def __init__(self, path: Path, machine: Machine) -> None:
        """Read ``path``, or begin it.

        Raises ArgumentError where it is of another machine.
        """
        self.path, self.machine = path, machine
        self.outcomes: dict[str, Outcome] = {}
        self._cuts: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = list(_lines(path))
        if not lines:
            self._write({"machine": asdict(machine)})
        for line in lines:
            if "machine" in line:
                self._same(Machine(**line["machine"]))
            else:
                self._keep(line.pop("key"), Outcome(**line))

    def _same(self, machine: Machine) -> None:
        if machine != self.machine:
            raise ArgumentError(
                f"{self.path} is of {machine.device} with {dict(machine.versions)}, this is "
                f"{self.machine.device} with {dict(self.machine.versions)}: name another folder"
            )

    def is_open(self, job: Job) -> bool:
        """Whether a job is still to be made."""
        outcome = self.outcomes.get(job.key)
        return outcome is None or outcome.status == "cut"

    def add(self, job: Job, outcome: Outcome) -> Outcome:
        """Keep what became of a job; the second cut ends it."""
        if outcome.status == "cut" and self._cuts.get(job.key, 0) + 1 >= _CUTS:
            outcome = Outcome("timed out", outcome.seconds, message="longer than a piece, twice")
        outcome = outcome.now()
        self._keep(job.key, outcome)
        self._write({"key": job.key, **asdict(outcome)})
        return outcome

    def forget(self, statuses: tuple[Status, ...]) -> None:
        """Make jobs that ended so again, in this run."""
        for key in [k for k, outcome in self.outcomes.items() if outcome.status in statuses]:
            del self.outcomes[key]
            self._cuts.pop(key, None)

    def _keep(self, key: str, outcome: Outcome) -> None:
        self.outcomes[key] = outcome
        self._cuts[key] = self._cuts.get(key, 0) + 1 if outcome.status == "cut" else 0

    def _write(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file; the last may be torn by a kill, and is made again."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    for line in whole.splitlines():
        yield json.loads(line)
