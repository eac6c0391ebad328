"""Many examples: in batches that a seed decides, on several cores, to be taken up again."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .damage import COMMANDS, command_line, damaged
from .forms import EVERY_WAY, FORMS, trials
from .judge import FAILURES, Verdict, judge
from .worker import Worker

DAMAGED = "damaged"
PER_BATCH = 50
SHRINKING_S = 90.0
_DAMAGED_S = 60.0


@dataclass(frozen=True)
class Batch:
    """So many examples of a form from a seed: the same each time.

    Each is tried on all ``backends``; where none is named, on one that is drawn.
    """

    form: str
    seed: int
    examples: int = PER_BATCH
    backends: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What tells it from others."""
        return f"{self.form} {self.seed} {self.examples} {','.join(self.backends)}"


Record = dict[str, Any]


def strategy(batch: Batch) -> st.SearchStrategy[Any]:
    """What the examples of a batch are."""
    if batch.form == DAMAGED:
        return st.tuples(damaged(), st.sampled_from(COMMANDS))
    return trials(batch.form, batch.backends or EVERY_WAY)


def run_batch(batch: Batch, look: Callable[[Record], bool] | None = None) -> list[Record]:
    """A record per example. With ``look``, stop at the first that it holds for, and shrink that.

    The last record that ``look`` held for is then the smallest one.
    """
    found: list[Record] = []
    with _own_cache():
        is_damaged = batch.form == DAMAGED
        worker = Worker(command_line, _DAMAGED_S) if is_damaged else Worker(judge)
        make = _damaged_record if is_damaged else _record
        until = time.monotonic() + (SHRINKING_S if look else float("inf"))

        @seed(batch.seed)
        @settings(
            max_examples=batch.examples,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink] if look else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy(batch))
        def examples(example: Any) -> None:
            if time.monotonic() > until:
                return
            record = make(worker, example)
            if look is None:
                found.append(record)
            elif look(record):
                found.append(record)
                raise AssertionError

        try:
            examples()
        except BaseException as failure:
            if look is None or not found:
                raise RuntimeError(batch.name) from failure
        finally:
            worker.stop()
    return found


def _own_cache() -> Any:
    """A folder for what is built, taken away at the end."""
    import contextlib

    @contextlib.contextmanager
    def opened() -> Iterator[None]:
        folder = tempfile.mkdtemp(prefix="fuzz_")
        before = os.environ.get("MIXC_CACHE")
        os.environ["MIXC_CACHE"] = folder
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if before is None:
                del os.environ["MIXC_CACHE"]
            else:
                os.environ["MIXC_CACHE"] = before

    return opened()


def _record(worker: Worker, trial: Any) -> Record:
    ended, answer = worker.ask(trial)
    verdict = answer if not ended else _after_the_end(worker, trial, ended, answer)
    results = {b: list(r) for b, r in verdict.results.items()}
    plain = all(outcome == "right" for outcome, _ in results.values())
    return {
        "form": trial.form,
        "dtype": trial.dtype,
        "seed": trial.seed,
        "results": results,
        "ops": dict(verdict.ops),
        "seconds": {b: round(s, 3) for b, s in verdict.seconds.items()},
        "spec": "" if plain else trial.text,
    }


def _after_the_end(worker: Worker, trial: Any, ended: str, said: str) -> Verdict:
    """Which backend it was that took the process with it: each by itself."""
    if len(trial.backends) == 1:
        return Verdict({trial.backends[0]: (ended, said)})
    results: dict[str, tuple[str, str]] = {}
    for backend in trial.backends:
        alone = type(trial)(trial.text, (backend,), trial.dtype, trial.seed, trial.form)
        died, answer = worker.ask(alone)
        results |= {backend: (died, str(answer))} if died else answer.results
    return Verdict(results)


def _damaged_record(worker: Worker, example: Any) -> Record:
    text, command = example
    start = time.monotonic()
    ended, answer = worker.ask((text, command))
    outcome, said = (ended, answer) if ended else answer
    if outcome.startswith(("exit", "traceback")):
        outcome, said = "crashed", f"{outcome}: {said}"
    name = " ".join(command)
    return {
        "form": DAMAGED,
        "dtype": "",
        "seed": 0,
        "results": {name: [outcome or "right", said if outcome else ""]},
        "ops": {},
        "seconds": {name: round(time.monotonic() - start, 3)},
        "spec": text if outcome else "",
    }


def signature(record: Record) -> str:
    """What makes two failures the same: backend, outcome, and the message without its numbers."""
    import re

    for backend, (outcome, said) in record["results"].items():
        if outcome in FAILURES:
            start = said.partition(": ")[0] if outcome == "wrong" else said
            start = re.sub(r"[\d.e+-]+|\[[^\]]*\]", "#", start.partition("\n")[0])[:90]
            where = "tiles" if backend.endswith("tiles") else backend
            precision = "" if outcome != "wrong" else f" {record['dtype']}"
            return f"{record['form']}, {where}{precision}: {outcome}: {start}"
    return ""


def campaign(batches: list[Batch], folder: Path, jobs: int) -> None:
    """Run the batches that ``folder`` has no results of yet."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.jsonl"
    done = {json.loads(line)["batch"] for line in path.open()} if path.exists() else set()
    left = [batch for batch in batches if batch.name not in done]
    with (
        path.open("a") as results,
        ProcessPoolExecutor(jobs, get_context("forkserver")) as pool,
    ):
        running = {pool.submit(run_batch, batch): batch for batch in left}
        for number, future in enumerate(as_completed(running), 1):
            batch = running[future]
            records = future.result()
            results.write(json.dumps({"batch": batch.name, "records": records}) + "\n")
            results.flush()
            failed = sum(bool(signature(r)) for r in records)
            print(f"{number}/{len(left)} {batch.form} {batch.seed}: {failed} failed", flush=True)


def batches_of(examples: int, first: int, backends: tuple[str, ...]) -> list[Batch]:
    """Batches of every form in turns, one in thirteen of damaged specs."""
    forms = [*sorted(FORMS), *sorted(FORMS), DAMAGED]
    count = -(-examples // PER_BATCH)
    return [Batch(forms[n % len(forms)], first + n, PER_BATCH, backends) for n in range(count)]
