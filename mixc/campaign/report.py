"""A campaign's outcomes as Markdown: what is right, how fast, and what was expected."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import geometric_mean
from typing import Any

from .jobs import Job, Kind
from .record import Outcome, Record

_TIMES = (
    "work", "default", "tuned", "mixc", "of machine", "fastest peer", "ratio", "expected",
    "of expected",
)  # fmt: skip
_STEPS = ("work", "mixc", "backward", "fastest peer", "ratio", "its backward, ratio")


def report(record: Record, jobs: Sequence[Job]) -> str:
    """The whole text."""
    machine = record.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    done = sum(not record.is_open(job) for job in jobs)
    days = sorted({outcome.at[:10] for outcome in record.outcomes.values()})
    head = [
        f"# mixc on {machine.device}",
        "",
        f"{machine.target}, {versions}; {' to '.join(dict.fromkeys(days[:1] + days[-1:]))}; "
        f"{done} of {len(jobs)} jobs made. bfloat16 where nothing else is said; medians.",
        *_rates(record),
    ]
    parts = [
        *(_correctness(record, jobs, kind) for kind in ("forward", "gradients")),
        _speeds(record, jobs),
        _steps(record, jobs),
        _failures(record, jobs),
    ]
    return "\n".join([*head, *(line for part in parts for line in part)]) + "\n"


def _rates(record: Record) -> Iterator[str]:
    """What torch reached on the machine while it was timed: the least and the most."""
    found = [o.data["machine"] for o in record.outcomes.values() if "products_gflop_s" in _of(o)]
    rates = (("products_gflop_s", "products", "GFLOP/s"), ("copies_gb_s", "copies", "GB/s"))
    for key, rate, unit in rates:
        numbers = [float(machine[key]) for machine in found]
        if numbers:
            yield f"Measured beside it: {rate} {min(numbers):,.0f} to {max(numbers):,.0f} {unit}."


def _of(outcome: Outcome) -> dict[str, Any]:
    machine = outcome.data.get("machine")
    return machine if isinstance(machine, dict) else {}


def _outcomes(record: Record, jobs: Sequence[Job], *kinds: Kind) -> Iterator[tuple[Job, Outcome]]:
    for job in jobs:
        outcome = record.outcomes.get(job.key)
        if job.kind in kinds and outcome is not None:
            yield job, outcome


def _correctness(record: Record, jobs: Sequence[Job], kind: Kind) -> Iterator[str]:
    found = list(_outcomes(record, jobs, kind))
    if not found:
        return
    right = [job.subject for job, outcome in found if outcome.status == "done"]
    counts: dict[str, int] = {}
    for _, outcome in found:
        for status, number in outcome.data.get("counts", {}).items():
            counts[status] = counts.get(status, 0) + number
    told = ", ".join(f"{number} {status}" for status, number in counts.items())
    yield from ("", f"## {kind.capitalize()}", "")
    yield f"{len(right)} of {len(found)} specs are right ({told or 'no cases'})."


def _speeds(record: Record, jobs: Sequence[Job]) -> Iterator[str]:
    rows = []
    ratios = []
    for job, outcome in _outcomes(record, jobs, "bench"):
        tuned, expected = (record.outcomes.get(f"{k} {job.subject}") for k in ("tune", "model"))
        own, peer = _own(outcome), _fastest_peer(outcome)
        model = _number(expected, "time_us")
        before, after = _number(tuned, "default", "time_us"), _number(tuned, "winner", "time_us")
        ratio = outcome.data.get("ratio")
        ratios += [ratio] if ratio else []
        share = own / model if own and model else None
        part = next((row.get("share") for row in outcome.data.get("rows", ())), None)
        shown = (
            _time(before), _time(after), _time(own), "" if part is None else f"{part:.0%}",
            _peer(peer), _ratio(outcome.data),
        )  # fmt: skip
        rows.append((job.subject, *shown, _time(model), "" if share is None else f"{share:.2f}"))
    yield from _table("Forward, in time", _TIMES, rows)
    if ratios:
        yield from ("", f"Geometric mean of the ratios: {geometric_mean(ratios):.2f}.")


def _steps(record: Record, jobs: Sequence[Job]) -> Iterator[str]:
    rows = []
    for job, outcome in _outcomes(record, jobs, "train"):
        own: dict[str, Any] = next(iter(outcome.data.get("rows", ())), {})
        backward = own.get("backward_ratio")
        rows.append((
            job.subject, _time(own.get("time_us")), _time(own.get("backward_us")),
            _peer(_fastest_peer(outcome)), _ratio(outcome.data),
            "" if backward is None else f"{backward:.2f}",
        ))  # fmt: skip
    yield from _table("Forward and backward, in time", _STEPS, rows)


def _failures(record: Record, jobs: Sequence[Job]) -> Iterator[str]:
    bad = [(j, o) for j, o in _outcomes(record, jobs, *_kinds(jobs)) if o.status != "done"]
    if not bad:
        return
    yield from ("", "## Not right, or not timed", "")
    for job, outcome in bad:
        yield f"- {job.key}: {outcome.status}{_reasons(outcome)}"


def _kinds(jobs: Sequence[Job]) -> tuple[Kind, ...]:
    return tuple(dict.fromkeys(job.kind for job in jobs))


def _reasons(outcome: Outcome) -> str:
    """What was said, a line of each reason that there is."""
    cases = [*outcome.data.get("wrong", ()), *_broken(outcome)]
    said = [f"{case['status']}: {case.get('message', '')}" for case in cases]
    lines = dict.fromkeys(text.strip().splitlines()[0] for text in [*said, outcome.message] if text)
    return "".join(f"; {line}" for line in lines)


def _broken(outcome: Outcome) -> list[dict[str, Any]]:
    return [row for row in outcome.data.get("rows", ())[:1] if row["status"] != "timed"]


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns that no row has anything in are left out."""
    if not rows:
        return
    yield from ("", f"## {title}", "")
    told = [place for place in range(len(headings)) if any(row[place] for row in rows)]
    yield f"| {' | '.join(headings[place] for place in told)} |"
    yield f"|{'---|' * len(told)}"
    for row in rows:
        yield f"| {' | '.join(row[place] for place in told)} |"


def _own(outcome: Outcome) -> float | None:
    return next((row["time_us"] for row in outcome.data.get("rows", ())), None)


def _fastest_peer(outcome: Outcome) -> dict[str, Any] | None:
    peers = [row for row in outcome.data.get("rows", ())[1:] if row["compared"] and row["time_us"]]
    return min(peers, key=lambda row: float(row["time_us"]), default=None)


def _peer(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['name']}, {_time(row['time_us'])}"


def _ratio(data: Any) -> str:
    """The ratio to the fastest peer; none where the gap is inside the noise."""
    ratio = data.get("ratio")
    if ratio is None:
        return ""
    return "a tie" if data.get("verdict") == "tie" else f"{ratio:.2f}"


def _number(outcome: Outcome | None, *path: str) -> float | None:
    found: Any = None if outcome is None else outcome.data
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, (int, float)) and math.isfinite(found) else None


def _time(time_us: float | None) -> str:
    if time_us is None:
        return ""
    return f"{time_us / 1e3:.2f} ms" if time_us >= 1e3 else f"{time_us:.0f} us"
