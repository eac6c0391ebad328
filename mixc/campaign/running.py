"""Jobs until the time is up: checks side by side, what is timed by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from typing import Any

from .jobs import Job
from .record import Outcome, Record

# A job and the seconds that it has --> what became of it.
Run = Callable[[Job, float], Outcome]
Told = Callable[[Job, Outcome], None]
_LEAST_S = 20.0  # with less left, nothing starts
_MESSAGE_LINES = 6


def run_jobs(
    jobs: Sequence[Job],
    record: Record,
    seconds: float,
    run: Run,
    *,
    side_by_side: int = 1,
    told: Told = lambda job, outcome: None,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Make the jobs that are open, in order, for so many seconds; whether none is left.

    Args:
        jobs: all of the campaign.
        record: what is known, and where outcomes go.
        seconds: for this piece; a job that runs at its end is cut.
        run: makes a job.
        side_by_side: so many jobs at once, of those that measure no time.
        told: called after each.
        clock: in seconds.
    """
    end = clock() + seconds

    def one(job: Job) -> Outcome | None:
        left = end - clock()
        if left < _LEAST_S:
            return None
        outcome = run(job, min(job.limit_s, left))
        if outcome.status == "timed out" and left < job.limit_s:
            outcome = Outcome("cut", outcome.seconds)
        return outcome

    waiting = [job for job in jobs if record.is_open(job)]
    for timed, group in groupby(waiting, key=lambda job: job.timed):
        for job, outcome in _made(one, list(group), 1 if timed else side_by_side):
            told(job, record.add(job, outcome))
        if end - clock() < _LEAST_S:
            break
    return not any(record.is_open(job) for job in jobs)


def _made(
    one: Callable[[Job], Outcome | None], jobs: Sequence[Job], side_by_side: int
) -> Iterator[tuple[Job, Outcome]]:
    """Each job with its outcome when it ends, so many at once; without those that did not start."""
    if side_by_side == 1:  # here, where Ctrl-C stops the job at hand
        for job in jobs:
            outcome = one(job)
            if outcome is not None:
                yield job, outcome
        return
    with ThreadPoolExecutor(side_by_side) as pool:
        asked = {pool.submit(one, job): job for job in jobs}
        try:
            for answer in as_completed(asked):
                outcome = answer.result()
                if outcome is not None:
                    yield asked[answer], outcome
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_command(job: Job, seconds: float) -> Outcome:
    """Make a job by its command, in a process of its own that is stopped after its time."""
    words = [sys.executable, "-m", "mixc.cli", *job.arguments]
    start = time.monotonic()
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        answer, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _stop(process)
        return Outcome("timed out", time.monotonic() - start, message=f"over {seconds:.0f} s")
    except BaseException:  # Ctrl-C reaches this process alone
        _stop(process)
        raise
    return _read(job, process.returncode, answer, errors, time.monotonic() - start)


def _stop(process: subprocess.Popen[str]) -> None:
    """End a process and those that it has started: a worker may hold the GPU."""
    os.killpg(process.pid, 9)
    process.communicate()


def _read(job: Job, code: int, answer: str, errors: str, seconds: float) -> Outcome:
    try:
        found = json.loads(answer)
        if "error" in found:
            return Outcome("failed", seconds, message=found["error"])
        return Outcome("failed" if code else "done", seconds, _KEPT[job.kind](found))
    except (ValueError, KeyError, TypeError, IndexError):
        last = "\n".join(errors.strip().splitlines()[-_MESSAGE_LINES:])
        return Outcome("failed", seconds, message=last or f"exit code {code}")


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    wrong = [case for case in answer["cases"] if case["status"] != "right"]
    return {"counts": answer["counts"], "wrong": wrong}


def _tuned(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("default", "winner", "trials")}


def _timed(answer: dict[str, Any]) -> dict[str, Any]:
    (found,) = answer["benchmarks"]
    return dict(found)


def _modelled(answer: dict[str, Any]) -> dict[str, Any]:
    expected = [one["expected_us"] for one in answer["expected"]]
    return {"time_us": sum(expected), "machine": answer["expected"][0]["machine"]}


_KEPT: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "forward": _checked,
    "gradients": _checked,
    "tune": _tuned,
    "bench": _timed,
    "train": _timed,
    "model": _modelled,
}
