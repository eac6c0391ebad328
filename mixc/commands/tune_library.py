"""``mixc tune --all``: the library on this machine, shared with others that have its storage."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..ir.errors import MixcError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from ..autotune.results.devices import Device
    from ..autotune.search.fleet import Task
    from ..autotune.search.tuned import Tuned

# A task --> what tuning it found.
TuneTask = Callable[["Task"], "Tuned"]


def tune_library(
    device: Device,
    storage: str | Path,
    tasks: Sequence[Task],
    tune: TuneTask,
    quiet: bool = False,
    budget_s: float | None = None,
) -> list[dict[str, Any]]:
    """Take tasks until none is left that another machine does not have; what became of each.

    With ``budget_s`` in rounds of few trials, each where it promises most, for so many seconds.
    Ctrl-C gives the task at hand back, and ends.
    """
    from ..autotune.search.budget import Budget
    from ..autotune.search.fleet import Queue
    from ..autotune.search.journal import open_storage
    from ..autotune.search.tuned import InterruptedEarly

    queue = Queue(open_storage(storage), device)
    budget = None if budget_s is None else Budget(budget_s, tasks)
    if budget is None:
        queue.offer(tasks)
    done: list[dict[str, Any]] = []
    while (taken := queue.take() if budget is None else budget.take(queue)) is not None:
        trial, task = taken
        row: dict[str, Any] = {"spec": task.spec, "dtype": task.dtype, "trials": task.trials}
        start = time.monotonic()
        try:
            tuned = tune(task)
        except InterruptedEarly:
            queue.give_back(trial)
            break
        except Exception as error:  # a defect ends one task: nobody watches a fleet
            message = str(error) if isinstance(error, MixcError) else repr(error)
            queue.fail(trial, message)
            done.append({**row, "status": "failed", "message": message})
        except BaseException:
            queue.give_back(trial)
            raise
        else:
            if tuned.history.interrupted:
                queue.give_back(trial)
                break
            queue.finish(trial, tuned.result, time.monotonic() - start)
            done.append({**row, "status": "tuned", **times(tuned)})
        if not quiet:
            click.echo(line(done[-1]), err=True)
    return done


def times(tuned: Tuned) -> dict[str, Any]:
    """What was found, in numbers."""
    result = tuned.result
    return {
        "time_us": result.time_us,
        "default_us": result.default_time_us,
        "configuration": dict(result.configuration),
        "stored": str(tuned.path),
    }


def line(row: dict[str, Any]) -> str:
    """``causal bfloat16: 120 us, default 140 us``."""
    name = f"{row['spec']} {row['dtype']}, {row['trials']} trials"
    if row["status"] == "failed":
        return f"{name}: {row['message'].splitlines()[0]}"
    default = "" if row["default_us"] is None else f", default {row['default_us']:,.0f} us"
    return f"{name}: {row['time_us']:,.0f} us{default}"


def write(console: Console, done: Sequence[dict[str, Any]]) -> None:
    """How many were tuned; each was said when it ended."""
    states = {row["spec"]: row["status"] for row in done}  # of the last round of each
    failed = list(states.values()).count("failed")
    others = f", {failed} failed" if failed else ""
    console.print(f"{len(states) - failed} specs tuned{others}", markup=False, highlight=False)
