"""``mixc bench --all``: every spec of the library beside its peers, in runs that go on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..ir.errors import ArgumentError

if TYPE_CHECKING:
    from ..campaign.jobs import Job
    from ..campaign.record import Outcome


def bench_library(
    device: str, dtype: str, grad: bool, minutes: float | None, output: Path, quiet: bool = False
) -> dict[str, Any]:
    """Time what ``output`` has no time of yet, and write ``report.md`` there.

    ``left``: how many timings are still to be made; ``report``: where the tables are.

    Raises ArgumentError where ``output`` is of another machine.
    """
    from ..campaign.jobs import suite
    from ..campaign.record import Record, this_machine
    from ..campaign.report import report
    from ..campaign.running import run_command, run_jobs
    from ..compiler.language.find import library

    try:
        record = Record(output / "outcomes.jsonl", this_machine(device))
    except ArgumentError as error:
        raise click.UsageError(str(error)) from error
    jobs = suite([path.stem for path in library()], device, dtype, grad)
    seconds = math.inf if minutes is None else minutes * 60
    made = output / "report.md"
    try:
        run_jobs(jobs, record, seconds, run_command, told=_silent if quiet else _tell)
    finally:
        made.write_text(report(record, jobs), encoding="utf-8")
    statuses = [record.outcomes[job.key].status for job in jobs if not record.is_open(job)]
    return {
        "report": str(made),
        "timed": statuses.count("done"),
        "failed": sum(status != "done" for status in statuses),
        "left": len(jobs) - len(statuses),
        "outcomes": {
            job.key: dict(record.outcomes[job.key].data) for job in jobs if not record.is_open(job)
        },
    }


def sentence(found: dict[str, Any]) -> str:
    """``bench/report.md: 120 timed, 2 failed, 132 left``."""
    counts = ", ".join(f"{found[name]} {name}" for name in ("timed", "failed", "left"))
    return f"{found['report']}: {counts}"


def _tell(job: Job, outcome: Outcome) -> None:
    ratio = outcome.data.get("ratio")
    told = "" if ratio is None else f", {ratio:.2f} times the fastest peer"
    if outcome.data.get("verdict") == "tie":
        told = ", a tie with the fastest peer"
    click.echo(f"{outcome.seconds:6.1f} s  {job.key}: {outcome.status}{told}", err=True)


def _silent(job: Job, outcome: Outcome) -> None:
    del job, outcome
