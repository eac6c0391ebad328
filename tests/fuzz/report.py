"""What a campaign found, as JSON and as a page."""

from __future__ import annotations

import json
import subprocess
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from .campaign import Batch, Record, run_batch, signature
from .judge import FAILURES, OUTCOMES


def write_report(folder: Path, shrink: bool) -> dict[str, Any]:
    """``report.json`` and ``report.md`` in the folder; the failures shrunk where asked for."""
    found = _read(folder)
    failures = [_failure(name, kept, shrink) for name, kept in sorted(found["failures"].items())]
    data = {
        "commit": _commit(),
        "examples": found["examples"],
        "outcomes": {k: dict(v) for k, v in sorted(found["outcomes"].items())},
        "unsupported": dict(found["unsupported"].most_common()),
        "lucky": found["lucky"],
        "seconds": {k: round(v, 1) for k, v in found["seconds"].items()},
        "ops": dict(found["ops"].most_common()),
        "failures": sorted(failures, key=lambda f: -f["count"]),
    }
    (folder / "report.json").write_text(json.dumps(data, indent=1))
    (folder / "report.md").write_text(page(data))
    return data


def _read(folder: Path) -> dict[str, Any]:
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    ops, unsupported, seconds = Counter[str](), Counter[str](), Counter[str]()
    failures: dict[str, list[tuple[str, Record]]] = defaultdict(list)
    examples = lucky = 0
    for line in (folder / "results.jsonl").open():
        entry = json.loads(line)
        for record in entry["records"]:
            examples += 1
            ops.update(record["ops"])
            seconds.update(record["seconds"])
            for backend, (outcome, said) in record["results"].items():
                outcomes[f"{record['form']}, {backend}"][outcome] += 1
                lucky += outcome == "right" and said.startswith("by luck")
                if outcome == "unsupported":
                    unsupported[said.partition("\n")[0][:110]] += 1
            if name := signature(record):
                failures[name].append((entry["batch"], record))
    return {
        "examples": examples, "outcomes": outcomes, "ops": ops, "unsupported": unsupported,
        "seconds": seconds, "failures": failures, "lucky": lucky,
    }  # fmt: skip


def _failure(name: str, kept: list[tuple[str, Record]], shrink: bool) -> dict[str, Any]:
    batch, record = min(kept, key=lambda pair: len(pair[1]["spec"]))
    if shrink:
        form, number, examples, backends = batch.split(" ", 3)
        again = Batch(form, int(number), int(examples), tuple(filter(None, backends.split(","))))
        try:
            smaller = run_batch(again, lambda r: signature(r) == name)
        except RuntimeError:  # it depends on something else than the seed
            smaller = []
        record = min([record, *smaller], key=lambda r: len(r["spec"]))
    said = next(s for o, s in record["results"].values() if o in FAILURES)
    return {
        "signature": name, "count": len(kept), "batch": batch, "dtype": record["dtype"],
        "seed": record["seed"], "message": said, "spec": record["spec"],
    }  # fmt: skip


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def page(data: dict[str, Any]) -> str:
    """The report for a reader."""
    lines = [f"# {data['examples']} examples at {data['commit']}", ""]
    lines += [
        "| form, backend | " + " | ".join(OUTCOMES) + " |",
        "|---" * (len(OUTCOMES) + 1) + "|",
    ]
    for name, counts in data["outcomes"].items():
        lines.append(f"| {name} | " + " | ".join(str(counts.get(o, 0)) for o in OUTCOMES) + " |")
    lines += ["", f"{data['lucky']} were right at a second draw of their inputs.", ""]
    lines += ["## Failures", ""] if data["failures"] else ["No failures.", ""]
    for failure in data["failures"]:
        lines += [f"### {failure['count']} x {failure['signature']}", "", failure["message"], ""]
        lines += ["```yaml", failure["spec"].rstrip(), "```", ""]
    lines += ["## Unsupported", ""]
    lines += [f"- {count} x {said}" for said, count in data["unsupported"].items()]
    lines += ["", "## Seconds", ""]
    lines += [f"- {name}: {count}" for name, count in data["seconds"].items()]
    lines += ["", "## What specs were made of", ""]
    lines += [", ".join(f"{name} {count}" for name, count in data["ops"].items()), ""]
    return "\n".join(lines)
