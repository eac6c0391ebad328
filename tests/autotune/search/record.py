"""Records the time of every configuration of a spec's kernels here, for replays of searches.

On a machine that does nothing else::

    python -m tests.autotune.search.record causal --dtype float32 --size T=2048

writes ``grids/causal-float32.csv``. Kernels are built first (``--build`` ends there; they stay in
mixc's cache), then timed in turns, so that a drift of the machine's clock meets all alike.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path

import torch

from mixc.autotune.bench.measuring import Clock
from mixc.autotune.bench.timed_inputs import timed_inputs
from mixc.autotune.checking.shapes import CPU_PROPORTIONS, shown_sizes, timed_sizes
from mixc.autotune.results.devices import this_cpu
from mixc.autotune.search.kernels import configured_runner, space_of
from mixc.autotune.search.order import admitted
from mixc.autotune.search.trial import Problem
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file

from .replay import FOLDER, Grid

_BATCH_US = 10_000


def main() -> None:
    """Build, time, write."""
    told = arguments()
    mixer = load_file(find_spec(told.spec))
    sizes = timed_sizes(mixer, CPU_PROPORTIONS, pairs(told.size))
    problem = Problem(mixer, told.dtype, "cpu", sizes, sizes)
    space = space_of(mixer, sizes, told.dtype, this_cpu())
    fixed = pairs(told.fix)
    configurations = [c for c in admitted(space) if c.items() >= fixed.items()]
    tensors = timed_inputs(mixer, sizes, getattr(torch, told.dtype))
    calls = []
    for place, configuration in enumerate(configurations, 1):
        calls.append(partial(configured_runner(problem, configuration), tensors, {}))
        calls[-1]()
        print(f"\rbuilt {place} of {len(configurations)}", end="", flush=True)
    print()
    if told.build:
        return
    listed = " ".join(f"{dim}={size}" for dim, size in shown_sizes(mixer, sizes).items())
    about = f"{told.spec} {told.dtype} {listed} on {this_cpu().name} ({this_cpu().architecture})"
    if fixed:
        about += f"; {', '.join(f'{name} {value}' for name, value in fixed.items())} throughout"
    knobs = tuple(k for k in space.knobs if k.name not in fixed)
    named = [{k.name: c[k.name] for k in knobs} for c in configurations]
    default = {k.name: k.default for k in knobs}
    grid = Grid(about, default, list(zip(named, timed(calls, told.rounds), strict=True)))
    path = Path(told.out) if told.out else FOLDER / f"{told.spec}-{told.dtype}.csv"
    path.write_text(grid.text)
    print(f"{len(grid.rows)} times in {path}")


def timed(calls: list, rounds: int) -> list[float]:
    """The median time of each call, all in turns."""
    clock = Clock("cpu")
    counts = [int(_BATCH_US / max(clock.once(call), 1.0)) + 1 for call in calls]
    times = [[clock.once(c, n) for c, n in zip(calls, counts, strict=True)] for _ in range(rounds)]
    return [round(statistics.median(column), 2) for column in zip(*times, strict=True)]


def pairs(words: list[str]) -> dict[str, int]:
    """``T=64`` --> T: 64."""
    return {name: int(value) for name, _, value in (word.partition("=") for word in words)}


def arguments() -> argparse.Namespace:
    """What to record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--size", action="append", default=[], metavar="DIM=N")
    parser.add_argument("--fix", action="append", default=[], metavar="KNOB=N")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--build", action="store_true", help="build the kernels, time none")
    parser.add_argument("--out", help="the file to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
