"""What ``mixc tune`` answers: the winner against the default, what failed and what was cut."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from .tune_table import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.console import Console

    from ..autotune.search.tuned import Tuned
    from ..ir.mixer import Mixer


def as_json_data(tuned: Tuned) -> dict[str, Any]:
    """The answer as data."""
    result, history = tuned.result, tuned.history
    default_us = result.default_time_us
    return {
        "spec": result.key.spec,
        "device": result.as_dict()["device"],
        "dtype": result.key.dtype,
        "sizes": dict(result.sizes),
        "modelled": result.modelled,
        "trials": {
            "finished": len(history.trials),
            "of_this_run": tuned.fresh,
            "failed": history.number("failed"),
            "hopeless": history.number("hopeless"),
            "cut": len(history.cut),
            "interrupted": history.interrupted,
        },
        "default": {"configuration": dict(tuned.default), "time_us": default_us},
        "winner": {
            "configuration": dict(result.configuration),
            "time_us": result.time_us,
            "spread_us": result.spread_us,
            "error": result.error,
            "limit": result.limit,
        },
        "speedup": None if default_us is None else round(default_us / result.time_us, 3),
        "stored": str(tuned.path),
        "history": [
            {
                "number": trial.number,
                "configuration": dict(trial.configuration),
                "status": trial.outcome.status,
                "message": trial.outcome.message,
                "time_us": trial.outcome.time_us,
                "spread_us": trial.outcome.spread_us,
            }
            for trial in history.trials
        ],
    }


def write(console: Console, mixer: Mixer, tuned: Tuned, pictures: Sequence[Path] = ()) -> None:
    """The winner, against the default; where it and pictures are kept; what failed."""
    from rich.text import Text

    from ..autotune.checking.shapes import shown_sizes

    result, history = tuned.result, tuned.history
    sizes = " ".join(f"{dim}={size}" for dim, size in shown_sizes(mixer, result.sizes).items())
    device = result.key.device
    where = device.architecture if result.modelled else device.name
    lines = [f"{result.key.spec}, {result.key.dtype}, {sizes}, on {where}"]
    lines.append(_trials_line(tuned))
    if result.default_time_us is not None:
        lines.append(f"default  {result.default_time_us:>12,.1f} us   {words(tuned.default)}")
    kind = "modelled" if result.modelled else f"± {result.spread_us:,.1f}"
    lines.append(f"winner   {result.time_us:>12,.1f} us   {words(result.configuration)} ({kind})")
    if result.default_time_us is not None:
        if dict(result.configuration) == dict(tuned.default):
            lines.append("nothing beat the default in so many turns that it isn't luck")
        else:
            lines.append(f"{result.default_time_us / result.time_us:.2f} times the default's speed")
    if result.error is not None and result.limit is not None:
        lines.append(f"verified: error {result.error:.1e}, limit {result.limit:.1e}")
    lines.append(f"kept in {tuned.path}")
    lines += [f"picture  {path}" for path in pictures]
    console.print(Text("\n".join(lines)), soft_wrap=True)
    reasons = dict.fromkeys(
        t.outcome.message.splitlines()[0] for t in history.trials if t.outcome.status == "failed"
    )
    for line in cut_lines(history.cut):
        console.print(Text(line), soft_wrap=True)
    for reason in list(reasons)[:3]:
        console.print(Text(f"failed: {reason}"), soft_wrap=True)


def _trials_line(tuned: Tuned) -> str:
    history = tuned.history
    counts = [f"{len(history.trials)} trials"]
    if tuned.fresh < len(history.trials):
        counts.append(f"{tuned.fresh} of them now")
    for status in ("failed", "hopeless"):
        if history.number(status):
            counts.append(f"{history.number(status)} {status}")
    if history.interrupted:
        counts.append("interrupted")
    return ", ".join(counts)


def cut_lines(reasons: Sequence[str]) -> Iterator[str]:
    """What the target refused before a trial, the most frequent reasons with their numbers."""
    kinds = Counter(re.sub(r"[\d,]*\d", "N", reason) for reason in reasons)
    shown = {re.sub(r"[\d,]*\d", "N", reason): reason for reason in reversed(reasons)}
    for kind, count in kinds.most_common(3):
        yield f"cut before a trial, {count} times: {shown[kind]}"
