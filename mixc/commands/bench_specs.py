"""``mixc bench``: how fast a spec's kernels are, beside what a torch user would run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..show.written import console
from .bench_library import bench_library, sentence
from .options import (
    answer,
    device_type,
    dim_sizes,
    dtype_option,
    json_option,
    load_spec,
    param_option,
    size_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ..autotune.bench.bench import Benchmark, Row
    from ..ir.mixer import Mixer
    from ..runtime.backends import Runner

TIMED = ("", "time", "spread", "GFLOP/s", "GB/s", "of machine", "ratio", "first call")
TRAINED = ("", "time", "spread", "ratio", "backward", "ratio", "first call")


@click.command("bench")
@click.argument("specs", nargs=-1, metavar="SPEC...")
@click.option("--all", "whole", is_flag=True, help="The library, each spec beside all its peers.")
@click.option("--peers", is_flag=True, help="Time what torch users have for it, too.")
@click.option(
    "--peer",
    "named",
    multiple=True,
    help="Only this peer: sdpa, flex, eager, parallel, fla and so on; an unknown one lists them.",
)
@click.option("--grad", is_flag=True, help="Time forward and backward, peers under autograd.")
@click.option("--rounds", type=click.IntRange(2), help="Rounds of all rows in turns; 5 or more.")
@click.option(
    "--device", metavar="[cpu|cuda]", help="Default: cuda where there is a GPU, else cpu."
)
@click.option(
    "--output", default="bench", show_default=True, metavar="DIRECTORY",
    type=click.Path(path_type=Path, file_okay=False), help="With --all: outcomes and report.md.",
)  # fmt: skip
@click.option(
    "--minutes", type=click.FloatRange(min=0.5), help="With --all: end then; the next run goes on."
)
@dtype_option(multiple=False, default="bf16", help="The working precision; bf16 if not given.")
@param_option
@size_option
@json_option
def command(
    specs: tuple[str, ...],
    whole: bool,
    peers: bool,
    named: tuple[str, ...],
    grad: bool,
    rounds: int | None,
    device: str | None,
    output: Path,
    minutes: float | None,
    dtype: str,
    params: tuple[str, ...],
    sizes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Time the kernels of one or more SPECs on this machine.

    Every row is checked on a short sequence before it is timed; rows take turns, and what is told
    is the median with the distance between the quartiles. GFLOP/s count visible pairs only. The
    part of the machine is that of its measured rate of products, or of copies, whichever is more.
    """
    if whole:
        if specs or named or params or sizes or rounds:
            raise click.UsageError("--all takes no SPEC, --peer, --rounds, -p or --size.")
        made = bench_library(device_type(device), dtype, grad, minutes, output, as_json)
        answer(made, as_json, lambda console: console.print(sentence(made), soft_wrap=True))
        click.get_current_context().exit(int(made["failed"] > 0))
    if not specs:
        raise click.UsageError("Which SPEC? Or --all of the library.")
    mixers = [load_spec(spec, params) for spec in specs]
    fixed = dim_sizes(sizes)
    wanted = _peers(peers, named)
    found = []
    for mixer in mixers:
        found.append(run(mixer, device_type(device), dtype, fixed, wanted, rounds, grad))
        if not as_json:
            write(console(), found[-1], mixer)
    answer({"benchmarks": [b.as_dict() for b in found]}, as_json, lambda _: None)
    if any(benchmark.rows[0].status != "timed" for benchmark in found):
        click.get_current_context().exit(1)


def _peers(every: bool, named: tuple[str, ...]) -> tuple[str, ...]:
    from ..autotune.bench.all_peers import PEERS

    for name in named:
        if name not in PEERS:
            raise click.UsageError(f"--peer takes {', '.join(PEERS)}, got '{name}'.")
    return named or (tuple(PEERS) if every else ())


def run(
    mixer: Mixer,
    device: str,
    dtype: str,
    sizes: Mapping[str, int],
    peers: tuple[str, ...],
    rounds: int | None,
    grad: bool = False,
) -> Benchmark:
    """Time one mixer; with ``grad``, forward and backward."""
    import torch

    from ..autotune.bench.bench import bench
    from ..autotune.checking.shapes import CPU_PROPORTIONS, GPU_PROPORTIONS, timed_sizes
    from ..runtime.backends import kernel_runner
    from ..runtime.training import Training

    proportions = CPU_PROPORTIONS if device == "cpu" else GPU_PROPORTIONS
    timed = timed_sizes(mixer, proportions, sizes)
    chosen: Any = "cpu" if device == "cpu" else "triton"
    kernels: Runner = kernel_runner(mixer, chosen, mixer)
    if grad:
        kernels = Training(
            mixer,
            lambda made, tuned=None: kernel_runner(made, chosen, tuned),
            chosen != "cpu",
            tuned=mixer,
        )
    return bench(
        mixer,
        lambda tensors: kernels(tensors, {}),
        timed,
        getattr(torch, dtype),
        device=device,
        peers=peers,
        rounds=rounds,
        grad=grad,
    )


def write(console: Console, benchmark: Benchmark, mixer: Mixer) -> None:
    """A row per implementation, the verdict below."""
    from rich.table import Table
    from rich.text import Text

    from ..autotune.checking.shapes import shown_sizes

    sizes = " ".join(f"{d}={n}" for d, n in shown_sizes(mixer, benchmark.sizes).items())
    what = "forward and backward, " if benchmark.grad else ""
    title = f"{benchmark.spec}, {what}{benchmark.dtype}, {sizes}, {benchmark.rounds} rounds"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in TRAINED if benchmark.grad else TIMED:
        table.add_column(heading, justify="right" if heading else "left")
    for row in benchmark.rows:
        if row.status == "not sayable" and row is not benchmark.rows[0]:
            continue
        told = _is_told(benchmark, row)
        table.add_row(*(Text(cell) for cell in cells(row, benchmark.grad, told)))
    console.print(table)
    if benchmark.machine is not None:
        console.print(Text(f"machine: {benchmark.machine.sentence}"), soft_wrap=True)
    for line in _untimed(benchmark.rows):
        console.print(Text(line), soft_wrap=True)
    if benchmark.verdict is not None:
        console.print(Text(verdict(benchmark)))
    console.print()


def _untimed(rows: Sequence[Row]) -> Iterator[str]:
    """Why rows have no time; peers that can't say a spec for one reason stand together."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.status != "timed":
            reasons.setdefault((row.status, row.message), []).append(row.name)
    for (status, message), names in reasons.items():
        yield f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {status}: {message}"


def verdict(benchmark: Benchmark) -> str:
    """How we stand to the fastest peer; no ratio where the gap is inside the noise."""
    if benchmark.verdict == "tie" or benchmark.ratio is None:
        return "a tie with the fastest peer: the gap is inside the spread"
    return f"{benchmark.ratio:.2f} times the fastest peer"


def _is_told(benchmark: Benchmark, row: Row) -> bool:
    """Whether a row's ratio is more than noise; the peers' are against their fastest."""
    return row is not benchmark.rows[0] or benchmark.verdict != "tie"


def cells(row: Row, grad: bool = False, told: bool = True) -> tuple[str, ...]:
    """The texts of a row, under ``TIMED``; with ``grad`` under ``TRAINED``.

    ``told``: whether its ratio is outside of the noise.
    """
    if row.time_us is None:
        return f"{row.name} ({row.status})", *["-"] * (len(TRAINED if grad else TIMED) - 1)
    rates = (
        "-" if row.gflop_s is None else f"{row.gflop_s:,.1f}",
        "-" if row.gb_s is None else f"{row.gb_s:,.1f}",
        "-" if row.share is None else f"{row.share:.0%}",
        _ratio(row.ratio, row) if told else "a tie",
    )
    backward = (_ratio(row.ratio, row) if told else "a tie", f"{row.backward_us or 0:,.0f} us")
    return (
        f"{row.name}: {row.what}",
        f"{row.time_us:,.0f} us",
        f"{row.spread_us or 0:,.0f}",
        *((*backward, _ratio(row.backward_ratio, row)) if grad else rates),
        f"{row.first_call_s or 0:.1f} s",
    )


def _ratio(ratio: float | None, row: Row) -> str:
    if ratio is None:
        return "-" if row.compared else "no peer"
    return f"{ratio:.2f}"
