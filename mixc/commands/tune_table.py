"""The table that grows while ``mixc tune`` runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console, RenderableType
    from rich.live import Live

    from ..autotune.search.search import History, Trial
    from ..ir.mixer import Mixer

_SHOWN = 8


class TrialTable:
    """Shows the best trials and the last, live on a terminal, else a line per trial."""

    def __init__(self, console: Console, mixer: Mixer, trials: int, quiet: bool) -> None:
        """``trials`` are planned; ``quiet``: show nothing."""
        self._console, self._mixer, self._trials = console, mixer, trials
        self._quiet = quiet
        self._live: Live | None = None
        self._start = time.monotonic()
        self._earlier: int | None = None  # trials of earlier runs

    def __enter__(self) -> Self:
        """Start the display."""
        if not self._quiet and self._console.is_terminal:
            from rich.live import Live

            self._live = Live(console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the display."""
        if self._live is not None:
            self._live.stop()

    def update(self, history: History) -> None:
        """Show what there is after another trial."""
        if self._earlier is None:
            self._earlier = len(history.trials) - 1
        if self._live is not None:
            self._live.update(self._table(history))
        elif not self._quiet and history.trials:
            self._console.print(self._line(history), markup=False)

    def _line(self, history: History) -> str:
        last = history.trials[-1]
        count = f"{len(history.trials)}/{self._trials}"
        return f"{count:>7}  {shown_time(last):>24}  {words(last.configuration)}"

    def time_left(self, history: History) -> str:
        """The time that the trials to come take, as those of this run did."""
        taken_s = time.monotonic() - self._start
        fresh = len(history.trials) - (self._earlier or 0)
        left_s = taken_s / max(fresh, 1) * max(self._trials - len(history.trials), 0)
        return f"{taken_s:.0f} s, about {left_s:.0f} s left"

    def _table(self, history: History) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        failed = history.number("failed")
        title = f"{self._mixer.name}: {len(history.trials)} of {self._trials} trials, "
        title += f"{failed} failed, {self.time_left(history)}"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for heading in ("trial", "time", "configuration"):
            table.add_column(heading, justify="left" if heading == "configuration" else "right")
        best = history.best(_SHOWN)
        for place, trial in enumerate(best):
            style = "green" if place == 0 else ""
            row = (str(trial.number), shown_time(trial), words(trial.configuration))
            table.add_row(*(Text(cell) for cell in row), style=style)
        if history.trials and history.trials[-1] not in best:
            last = history.trials[-1]
            row = (str(last.number), shown_time(last), words(last.configuration))
            table.add_row(*(Text(cell) for cell in row), style="dim")
        return table


def shown_time(trial: Trial) -> str:
    """``28,412 us ± 310``, or why there is none."""
    outcome = trial.outcome
    if outcome.status != "ok" or outcome.time_us is None:
        return f"{outcome.status}: {outcome.message.splitlines()[0][:60]}"
    return f"{outcome.time_us:,.0f} us ± {outcome.spread_us:,.0f}"


def words(configuration: Mapping[str, int]) -> str:
    """``block_rows 64, block_keys 32``."""
    return ", ".join(f"{name} {value}" for name, value in configuration.items())
