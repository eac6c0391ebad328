"""What ``mixc verify`` prints while it runs and at the end."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console
    from rich.progress import Progress as Bar

    from ..autotune.checking.checking import Case
    from ..ir.mixer import Mixer
    from ..verifying.verification import Told

    Found = Sequence[tuple[Mixer, Sequence[Case]]]

_STYLES = {"right": "green", "unsupported": "yellow", "diverges": "yellow"}
_INTERVAL_S = 10.0  # between lines, where there is no terminal


class Progress:
    """A bar on a terminal, else a line now and then; nothing where ``quiet``."""

    def __init__(self, console: Console, total: int, quiet: bool) -> None:
        """``total`` checks are planned."""
        self._console, self._total, self._quiet = console, total, quiet
        self._done, self._failed = 0, 0
        self._bar: Bar | None = None
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        """Start the display."""
        if not self._quiet and self._console.is_terminal:
            from rich.progress import Progress as Bar

            self._bar = Bar(console=self._console, transient=True)
            self._bar.add_task("", total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the display."""
        if self._bar is not None:
            self._bar.stop()

    def of(self, mixer: Mixer, planned: int) -> Told:
        """What to tell of each case of a mixer."""
        start = self._done

        def told(case: Case, number: int) -> None:
            self._done = start + number
            self._failed += not case.ok
            self._show(f"{mixer.name}: {number} of {planned} checks", self._failed)

        return told

    def _show(self, text: str, failed: int) -> None:
        shown = f"{text}, {failed} failed" if failed else text
        if self._bar is not None:
            (task,) = self._bar.task_ids
            self._bar.update(task, completed=self._done, description=shown)
        elif not self._quiet and time.monotonic() - self._said >= _INTERVAL_S:
            self._said = time.monotonic()
            self._console.print(f"{self._done}/{self._total}  {shown}", markup=False)

    def pause(self, write: Callable[[], None]) -> None:
        """Write in between."""
        if self._bar is not None:
            self._bar.stop()
        write()
        if self._bar is not None:
            self._bar.start()


def write_all(console: Console, found: Found) -> None:
    """A row per case, what failed below, and the verdict."""
    for mixer, cases in found:
        _write_table(console, mixer, cases)
        write_line(console, mixer, cases)


def _write_table(console: Console, mixer: Mixer, cases: Sequence[Case]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("case", "backend", "dtype", "sizes", "error", "limit", ""):
        table.add_column(heading, justify="right" if heading in ("error", "limit") else "left")
    for case in cases:
        compared = case.status in ("right", "wrong")
        numbers = (f"{case.error:.1e}", f"{case.limit:.1e}") if compared else ("", "")
        verdict = Text("ok" if case.ok else case.status, style=_STYLES.get(case.status, "red"))
        sizes = Text(_sizes(mixer, case))
        table.add_row(case.name, case.backend, case.dtype, sizes, *numbers, verdict)
    console.print(table)


def write_line(console: Console, mixer: Mixer, cases: Sequence[Case]) -> None:
    """What failed, each reason once, and the verdict."""
    from rich.text import Text

    several: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if not case.ok:
            several.setdefault((case.status, case.message), []).append(case)
    for (status, message), alike in several.items():
        first = alike[0]
        more = f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
        what = f"{first.name}, {first.backend}, {first.dtype}, {_sizes(mixer, first)}"
        if first.configuration is not None:
            what += f", {' '.join(f'{k}={v}' for k, v in first.configuration.items())}"
        console.print(Text(f"{mixer.name}, {what}{more}: {status}: {message}"), soft_wrap=True)
    right = all(case.ok for case in cases)
    console.print(Text(f"{mixer.name}: {verdict(cases)}", style="green" if right else "red"))


def write_summary(console: Console, found: Found) -> None:
    """The verdict of several specs together."""
    from rich.text import Text

    cases = [case for _, made in found for case in made]
    good = sum(all(case.ok for case in made) for _, made in found)
    shown = f"{good} of {len(found)} specs are right: {verdict(cases)}"
    console.print(Text(shown, style="green" if good == len(found) else "red"))


def verdict(cases: Sequence[Case]) -> str:
    """``45 cases, all right``, or how many there are of each kind."""
    number = f"{len(cases)} case{'s' if len(cases) != 1 else ''}"
    if all(case.ok for case in cases):
        return f"{number}, all right"
    counts = Counter(case.status for case in cases)
    return f"{number}: " + ", ".join(f"{n} {status}" for status, n in counts.items())


def _sizes(mixer: Mixer, case: Case) -> str:
    same = {dim for dim, sequence in mixer.sequences if dim != sequence}
    return " ".join(f"{dim}={size}" for dim, size in case.sizes.items() if dim not in same)


def exit_code(cases: Iterable[Case]) -> int:
    """0: all are right; 3: something of mixc broke; 1: else."""
    from ..autotune.checking.checking import DEFECTS

    statuses = {case.status for case in cases}
    return 3 if statuses & DEFECTS else int(not statuses <= {"right"})


def as_json(found: Found) -> dict[str, Any]:
    """``{"ok": ..., "counts": ..., "cases": [...]}``, of several specs ``{"specs": [...]}``."""
    rows = [
        {
            "spec": mixer.name,
            "ok": all(case.ok for case in cases),
            "counts": dict(Counter(case.status for case in cases)),
            "cases": [_case(case) for case in cases],
        }
        for mixer, cases in found
    ]
    return rows[0] if len(rows) == 1 else {"ok": all(row["ok"] for row in rows), "specs": rows}


def _case(case: Case) -> dict[str, Any]:
    """A number that there is none of is null; a case that isn't right has a message."""
    data: dict[str, Any] = {
        "name": case.name,
        "backend": case.backend,
        "dtype": case.dtype,
        "sizes": dict(case.sizes),
        "status": case.status,
        "error": case.error if math.isfinite(case.error) else None,
        "limit": case.limit if math.isfinite(case.limit) else None,
    }
    if case.configuration is not None:
        data["configuration"] = dict(case.configuration)
    return data if case.ok else {**data, "message": case.message}
