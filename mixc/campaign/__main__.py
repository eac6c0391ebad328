"""``make gpu``: the library on a GPU in pieces, each going on where the last one stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import click

from ..ir.errors import ArgumentError
from .jobs import KINDS, Job, Kind, campaign
from .record import Outcome, Record, this_machine
from .report import report
from .running import run_command, run_jobs

DATA = "data"


@click.command()
@click.option("--minutes", default=7.5, show_default=True, type=click.FloatRange(min=0.5))
@click.option(
    "--output", default="build/gpu", show_default=True, type=click.Path(path_type=Path),
    help="The folder of outcomes.jsonl, report.md and the tuned results.",
)  # fmt: skip
@click.option("--only", "kinds", multiple=True, type=click.Choice(KINDS), help="These jobs alone.")
@click.option("--spec", "specs", multiple=True, help="These specs alone.")
@click.option("--trials", default=20, show_default=True, type=click.IntRange(1))
@click.option(
    "--side-by-side", default=max(1, (os.cpu_count() or 2) // 2), type=click.IntRange(1),
    help="How many checks at once; half of the cores if not given.",
)  # fmt: skip
@click.option("--again", is_flag=True, help="Make what failed or took too long once more.")
@click.option("--dry-run", is_flag=True, help="List the jobs; no GPU is needed.")
def command(
    minutes: float,
    output: Path,
    kinds: tuple[str, ...],
    specs: tuple[str, ...],
    trials: int,
    side_by_side: int,
    again: bool,
    dry_run: bool,
) -> None:
    """Check, tune and time the library on this machine's GPU, beside its peers and the model.

    Ends after so many minutes; the next run goes on. Exit code 0: all is made and right; 1: a
    check or a timing failed; 4: not all is made yet.
    """
    from ..compiler.language.find import library

    names = [path.stem for path in library()]
    wanted = [name for name in names if not specs or name in specs]
    chosen = cast("tuple[Kind, ...]", kinds) or KINDS
    if dry_run:
        for job in campaign(wanted, chosen, trials):
            click.echo(f"{job.limit_s:4.0f} s  mixc {' '.join(job.arguments)}")
        return
    try:
        machine = this_machine()
        record = Record(output / "outcomes.jsonl", machine)
    except ArgumentError as error:
        raise click.UsageError(str(error)) from error
    jobs = campaign(wanted, chosen, trials, machine.target)
    if again:
        record.forget(("failed", "timed out"))
    os.environ["MIXC_DATA"] = str((output / DATA).resolve())
    try:
        done = run_jobs(
            jobs, record, minutes * 60, run_command, side_by_side=side_by_side, told=_tell
        )
    finally:
        (output / "report.md").write_text(report(record, jobs), encoding="utf-8")
    left = sum(record.is_open(job) for job in jobs)
    click.echo(f"{output / 'report.md'}: {len(jobs) - left} of {len(jobs)} jobs made")
    bad = any(record.outcomes[j.key].status != "done" for j in jobs if not record.is_open(j))
    click.get_current_context().exit(4 if not done else int(bad))


def _tell(job: Job, outcome: Outcome) -> None:
    click.echo(f"{outcome.seconds:6.1f} s  {job.key}: {outcome.status}")


if __name__ == "__main__":
    command()
