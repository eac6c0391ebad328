"""Replays searches on recorded grids: how far the best of n trials is from the best of all.

``python -m tests.autotune.search.replay FILE.csv... --plot regret.png`` draws the curves.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import optuna

from mixc.autotune.search.kernels import Space
from mixc.autotune.search.order import key
from mixc.autotune.search.search import Search
from mixc.autotune.search.trial import Outcome
from mixc.ir.knob import Knob

FOLDER = Path(__file__).parent / "grids"
HOPELESS = 2.5


@dataclass(frozen=True)
class Grid:
    """Times of configurations on one machine; one that is not listed is refused."""

    about: str
    default: dict[str, int]
    rows: list[tuple[dict[str, int], float]]

    @cached_property
    def times(self) -> dict:
        """By configuration."""
        return {key(configuration): time for configuration, time in self.rows}

    @property
    def space(self) -> Space:
        """The knobs that the rows differ in."""
        choices = {n: tuple(sorted({c[n] for c, _ in self.rows})) for n in self.default}
        knobs = (Knob(n, values, self.default[n], "recorded") for n, values in choices.items())
        return Space(tuple(knobs), lambda c: None if key(c) in self.times else "refused", "")

    @property
    def text(self) -> str:
        """What a file holds."""
        names = list(self.default)
        lines = [f"# {self.about}", ",".join([*names, "time_us"])]
        lines.append(",".join([*(str(self.default[n]) for n in names), "default"]))
        lines += [",".join([*(str(c[n]) for n in names), f"{time:g}"]) for c, time in self.rows]
        return "\n".join(lines) + "\n"

    def outcome(self, configuration, best_us) -> Outcome:
        """What a trial would have told."""
        time_us = self.times[key(configuration)]
        if best_us is not None and time_us > HOPELESS * best_us:
            return Outcome("hopeless", "given up", time_us)
        return Outcome("ok", "", time_us)


def read_grid(path: Path) -> Grid:
    """The grid of a file."""
    about, _, table = path.read_text().partition("\n")
    default, *rows = csv.DictReader(io.StringIO(table))
    times = [float(row.pop("time_us")) for row in rows]
    default.pop("time_us")
    named = [{name: int(value) for name, value in row.items()} for row in (default, *rows)]
    return Grid(about.removeprefix("# "), named[0], list(zip(named[1:], times, strict=True)))


# A grid, trials, seed --> times in the order of trials.
Strategy = Callable[[Grid, int, int], list[float]]


def ours(grid: Grid, trials: int, seed: int) -> list[float]:
    """The search of ``mixc tune``."""
    search = Search(grid.space, optuna.storages.InMemoryStorage(), "replay", seed)
    history = search.run(grid.outcome, trials, [grid.default])
    return [grid.times[key(trial.configuration)] for trial in history.trials]


def plain_tpe(grid: Grid, trials: int, seed: int) -> list[float]:
    """Optuna as it comes; what a target refuses costs no trial."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(grid.default)
    times: list[float] = []
    while len(times) < trials:
        trial = study.ask()
        chosen = {k.name: trial.suggest_categorical(k.name, k.choices) for k in grid.space.knobs}
        time = grid.times.get(key(chosen))
        if time is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, time)
            times.append(time)
    return times


def at_random(grid: Grid, trials: int, seed: int) -> list[float]:
    """The default, then any."""
    drawn = random.Random(seed).sample([time for _, time in grid.rows], trials - 1)
    return [grid.times[key(grid.default)], *drawn]


STRATEGIES: dict[str, Strategy] = {
    "mixc": ours, "plain TPE": plain_tpe, "random": at_random,
}  # fmt: skip


def median_regret(grid: Grid, strategy: Strategy, trials: int, seeds: int) -> float:
    """How much slower than the best of all the best of a run is, in the median of runs."""
    best = min(grid.times.values())
    return statistics.median(min(strategy(grid, trials, s)) / best - 1 for s in range(seeds))


def curves(grid: Grid, budgets: list[int], seeds: int) -> dict[str, list[float]]:
    """Median regrets by budget: a search with 30 trials is none of 100 that was cut short."""
    return {
        name: [median_regret(grid, strategy, n, seeds) for n in budgets]
        for name, strategy in STRATEGIES.items()
    }


def replayed(path: Path, budgets: list[int], seeds: int) -> tuple[Grid, dict[str, list[float]]]:
    """A grid of a file, and its curves up to its size."""
    grid = read_grid(path)
    return grid, curves(grid, [n for n in budgets if n < len(grid.rows)], seeds)


def main() -> None:
    """Print the regrets of grids, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, default=sorted(FOLDER.glob("*.csv")))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", default="10,20,30,60,100")
    parser.add_argument("--plot", type=Path)
    told = parser.parse_args()
    budgets = [int(n) for n in told.trials.split(",")]
    found = []
    with ProcessPoolExecutor() as pool:
        replays = pool.map(partial(replayed, budgets=budgets, seeds=told.seeds), told.files)
        for grid, regrets in replays:
            found.append((grid, regrets))
            print(f"{grid.about}: {len(grid.rows)} configurations")
            for name, line in regrets.items():
                listed = "  ".join(f"{n}: {r:.2%}" for n, r in zip(budgets, line, strict=False))
                print(f"  {name:10} {listed}", flush=True)
    if told.plot:
        draw(found, budgets, told.plot)


def draw(found: list, budgets: list[int], path: Path) -> None:
    """A picture with a panel per grid."""
    from matplotlib.figure import Figure

    across = min(len(found), 3)
    down = -(-len(found) // across)
    figure = Figure(figsize=(3.6 * across, 2.8 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for axes, (grid, regrets) in zip(panels, found, strict=False):
        for name, line in regrets.items():
            axes.plot(budgets[: len(line)], [100 * r for r in line], marker=".", label=name)
        title = f"{' '.join(grid.about.split()[:2])}, {len(grid.rows)} configurations"
        axes.set(title=title, xlabel="trials", ylabel="median regret, %")
        axes.legend()
    for axes in panels[len(found) :]:
        axes.remove()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
