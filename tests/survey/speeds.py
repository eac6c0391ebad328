"""``make speeds``: the README's tables of this machine, from the commands in their first column.

A table stands between ``<!-- speeds SLUG -->`` and ``<!-- end of speeds -->``, SLUG as in
``mixc tuned`` results' folders. Each of its commands is run as it stands there, ``mixc bench`` in a
process of its own, and outcomes are kept: a run goes on where the last one stopped. Rows that have
an outcome are written anew, the rest stay.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mixc.autotune.results.devices import device_of_type
from mixc.campaign.jobs import Job
from mixc.campaign.record import Outcome, Record, this_machine
from mixc.campaign.running import run_command, run_jobs

README = Path(__file__).resolve().parents[2] / "README.md"
_PEERS = 3  # fastest first; a table of all of them is for `mixc bench`
_ROW = r"^\| `(mixc bench [^`]*)` \|.*$"
_LIMIT_S = 900.0  # compiled peers take minutes


def tables(page: str, slug: str) -> list[str]:
    """The tables of a device, each from its heading to its last row."""
    return re.findall(rf"<!-- speeds {slug} -->\n(.*?)<!-- end of speeds -->", page, re.DOTALL)


def commands(table: str) -> list[str]:
    """What its rows are about: ``mixc bench gla --dtype fp32``."""
    return re.findall(_ROW, table, re.MULTILINE)


def job_of(command: str) -> Job:
    """The job that runs a row's command; beside all peers where it names none."""
    words = shlex.split(command)[1:]
    peers = () if "--peer" in words else ("--peers",)
    kind = "train" if "--grad" in words else "bench"
    return Job(kind, command, (*words, *peers, "--json"), _LIMIT_S)


def row_of(command: str, found: Mapping[str, Any]) -> str:
    """The row of what its command answered; backward passes where they were timed."""
    time = "backward_us" if found["grad"] else "time_us"
    own, *others = found["rows"]
    peers = sorted((r for r in others if r["compared"] and r[time]), key=lambda r: float(r[time]))
    told = ", ".join(f"{peer['name']} {_ms(peer[time])}" for peer in peers[:_PEERS])
    return f"| `{command}` | {_ms(own[time])} | {told} | {_ratio(found, own, peers, time)} |"


def _ratio(
    found: Mapping[str, Any], own: Mapping[str, Any], peers: Sequence[Mapping[str, Any]], time: str
) -> str:
    if not peers:
        return ""
    if found["verdict"] == "tie" and not found["grad"]:  # it is of both passes together
        return "a tie"
    ratio = float(peers[0][time]) / float(own[time])
    return f"{ratio:.2f}" if ratio < 1 else f"{ratio:.3g}" if ratio >= 100 else f"{ratio:.1f}"


def _ms(time_us: float) -> str:
    return f"{time_us / 1e3:.1f} ms" if time_us < 1e5 else f"{time_us / 1e3:.0f} ms"


def written(page: str, slug: str, outcomes: Mapping[str, Outcome]) -> str:
    """The page with the rows of a device's tables that have an outcome."""

    def row(match: re.Match[str]) -> str:
        outcome = outcomes.get(job_of(match[1]).key)
        if outcome is None or outcome.status != "done":
            return match[0]
        return row_of(match[1], outcome.data)

    for table in tables(page, slug):
        page = page.replace(table, re.sub(_ROW, row, table, flags=re.MULTILINE))
    return page


def main() -> None:
    """Time what has no outcome yet, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/speeds"))
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--page", type=Path, default=README)
    options = parser.parse_args()
    page = options.page.read_text(encoding="utf-8")
    slug = device_of_type("cpu").slug
    jobs = [job_of(command) for table in tables(page, slug) for command in commands(table)]
    record = Record(options.out / "outcomes.jsonl", this_machine("cpu"))

    def told(job: Job, outcome: Outcome) -> None:
        print(f"{outcome.seconds:6.1f} s  {job.subject}: {outcome.status} {outcome.message}")

    run_jobs(jobs, record, options.minutes * 60, run_command, told=told)
    options.page.write_text(written(page, slug, record.outcomes), encoding="utf-8")
    left = sum(record.is_open(job) for job in jobs)
    print(f"{options.page}: {len(jobs) - left} of {len(jobs)} rows timed, {left} left")


if __name__ == "__main__":
    main()
