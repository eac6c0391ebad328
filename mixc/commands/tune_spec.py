"""``mixc tune``: the fastest configuration of a spec's kernels on a device, verified and kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..show.written import console
from .bench_specs import run as run_benchmark
from .bench_specs import write as write_benchmark
from .options import (
    answer,
    device_type,
    dim_sizes,
    dtype_option,
    duration,
    json_option,
    load_spec,
    param_option,
    size_option,
)
from .tune_answer import as_json_data, write
from .tune_library import tune_library
from .tune_library import write as write_library
from .tune_plots import pictures_of
from .tune_table import TrialTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from ..autotune.bench.bench import Benchmark
    from ..autotune.search.on_ray import Cluster
    from ..autotune.search.tuned import Tuned
    from ..ir.mixer import Mixer

_ALL_TAKES_NO = "--all takes no SPEC, --static, --ray, --plot, --peers, --grad, -p or --size."


@click.command("tune")
@click.argument("spec", required=False)
@click.option(
    "--all", "whole", is_flag=True, help="The library, shared with others that use the storage."
)
@click.option(
    "--device",
    default=None,
    metavar="[cpu|cuda|cuda:90...]",
    help="cpu, cuda (of this machine), or with --static the name of a target. "
    "Default: cuda where there is a GPU, else cpu.",
)
@click.option(
    "--trials", default=30, type=click.IntRange(1), help="Trials in all; 30 if not given."
)
@click.option(
    "--budget",
    metavar="TIME",
    callback=duration,
    help="With --all: for so long (90s, 10m, 2h), where trials promise most.",
)
@click.option("--storage", help="A database URL or a journal file, to share a study.")
@click.option("--time-limit", default=60.0, type=click.FloatRange(1), help="Seconds for a trial.")
@click.option("--static", is_flag=True, help="Rank by compile report and a model; nothing runs.")
@click.option(
    "--ray",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="Trials on the nodes or GPUs of a Ray cluster, several at once.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for pictures (PNG) of the search.",
)
@click.option("--peers", is_flag=True, help="Time the winner beside what torch users have, too.")
@click.option("--grad", is_flag=True, help="The backward pass, which training steps then take.")
@dtype_option(multiple=False, default="bf16", help="The working precision; bf16 if not given.")
@param_option
@size_option
@json_option
def command(
    spec: str | None,
    whole: bool,
    device: str | None,
    trials: int,
    budget: float | None,
    storage: str | None,
    time_limit: float,
    static: bool,
    ray: str | None,
    plot: Path | None,
    peers: bool,
    grad: bool,
    dtype: str,
    params: tuple[str, ...],
    sizes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Search for SPEC's fastest configuration on a device, or with --all those of the library.

    Every trial is checked against the reference before it is timed. The winner is kept, and
    mixc.load takes it from then on. Ctrl-C ends the search and keeps the best so far; a second
    run goes on where the first ended.
    """
    fixed = dim_sizes(sizes)
    if whole:
        if spec is not None or static or ray or plot or peers or grad or params or fixed:
            raise click.UsageError(_ALL_TAKES_NO)
        done = library(device, trials, dtype, storage, time_limit, as_json, budget)
        answer({"specs": done}, as_json, lambda console: write_library(console, done))
        return
    if budget is not None:
        raise click.UsageError("--budget is shared by specs: it goes with --all.")
    if spec is None:
        raise click.UsageError("Which SPEC? Or --all of the library.")
    mixer = load_spec(spec, params)
    if static and (grad or ray or peers):
        raise click.UsageError("--static takes no --grad, --ray or --peers: nothing runs.")
    if static:
        tuned = _modelled(mixer, device or "cuda:90", fixed, dtype, trials, storage, quiet=as_json)
    else:
        tuned = measured(
            mixer,
            trials,
            fixed,
            device=device,
            dtype=dtype,
            storage=storage,
            time_limit_s=time_limit,
            quiet=as_json,
            grad=grad,
            ray=ray,
        )
    pictures = [] if plot is None else pictures_of(mixer, tuned, plot)
    beside = _beside_peers(mixer, device, dtype, fixed, grad) if peers else None
    data = {**as_json_data(tuned), "pictures": [str(path) for path in pictures]}
    data["benchmark"] = None if beside is None else beside.as_dict()
    answer(data, as_json, lambda console: _tell(console, mixer, tuned, pictures, beside))


def _tell(
    console: Console,
    mixer: Mixer,
    tuned: Tuned,
    pictures: Sequence[Path],
    beside: Benchmark | None,
) -> None:
    write(console, mixer, tuned, pictures)
    if beside is not None:
        write_benchmark(console, beside, mixer)


def _beside_peers(
    mixer: Mixer, device: str | None, dtype: str, sizes: dict[str, int], grad: bool
) -> Benchmark:
    """The winner, which calls take from now on, beside all peers; with ``grad`` in training."""
    from ..autotune.bench.all_peers import PEERS

    kind = device_type(device)
    return run_benchmark(mixer, kind, dtype, sizes, tuple(PEERS), rounds=None, grad=grad)


def library(
    device: str | None,
    trials: int,
    dtype: str,
    storage: str | None,
    time_limit_s: float,
    quiet: bool,
    budget_s: float | None = None,
) -> list[dict[str, Any]]:
    """What became of every spec that this machine took; with a budget, of every round."""
    from ..autotune.results.devices import device_of_type
    from ..autotune.results.folders import data_folder
    from ..autotune.search.fleet import Task
    from ..compiler.language.find import library as specs

    kind = device_type(device)

    def tune(task: Task) -> Tuned:
        mixer = load_spec(task.spec)
        return measured(
            mixer, task.trials, {}, device=kind, dtype=task.dtype, storage=storage,
            time_limit_s=time_limit_s, quiet=True,
        )  # fmt: skip

    found = device_of_type(kind)
    place = storage or data_folder() / "studies" / f"{found.slug}.journal"
    tasks = [Task(path.stem, dtype, trials) for path in specs()]
    return tune_library(found, place, tasks, tune, quiet, budget_s)


def measured(
    mixer: Mixer,
    trials: int,
    sizes: dict[str, int],
    *,
    device: str | None = None,
    dtype: str = "bfloat16",
    storage: str | None = None,
    time_limit_s: float = 60.0,
    quiet: bool = False,
    grad: bool = False,
    ray: str | None = None,
) -> Tuned:
    """The result of timed trials on this machine, with a live table of them.

    ``grad``: of the mixer's backward pass. ``ray``: the address of a cluster whose places run them.
    """
    from ..autotune.checking.shapes import (
        CPU_PROPORTIONS,
        GPU_PROPORTIONS,
        checked_sizes,
        timed_sizes,
    )
    from ..autotune.search.backward import backward_problem
    from ..autotune.search.trial import Problem
    from ..autotune.search.tune import tune

    kind = _device_of_cluster(device) if ray else device_type(device)
    proportions = CPU_PROPORTIONS if kind == "cpu" else GPU_PROPORTIONS
    timed = timed_sizes(mixer, proportions, sizes)
    problem = Problem(mixer, dtype, kind, timed, checked_sizes(mixer, timed))
    if grad:
        problem = backward_problem(problem)
    cluster = _cluster(ray, kind, time_limit_s)
    with TrialTable(console(stderr=True), problem.mixer, trials, quiet) as table:
        return tune(
            problem,
            trials,
            storage=storage,
            time_limit_s=time_limit_s,
            on_trial=table.update,
            cluster=cluster,
        )


def _cluster(ray: str | None, kind: Literal["cpu", "cuda"], time_limit_s: float) -> Cluster | None:
    if ray is None:
        return None
    from ..autotune.search.on_ray import Cluster

    return Cluster(ray, kind, time_limit_s)


def _device_of_cluster(device: str | None) -> Literal["cpu", "cuda"]:
    """Of a cluster's devices, GPUs are meant where none is named."""
    if device == "cpu":
        return "cpu"
    if device in (None, "cuda"):
        return "cuda"
    raise click.UsageError(f"--device {device}: trials on a Ray cluster run on cpu or cuda.")


def _modelled(
    mixer: Mixer,
    device: str,
    sizes: dict[str, int],
    dtype: str,
    trials: int,
    storage: str | None,
    quiet: bool,
) -> Tuned:
    import torch

    from ..autotune.bench.timed_inputs import left_out, timed_inputs
    from ..autotune.bench.work import work_of
    from ..autotune.checking.shapes import GPU_PROPORTIONS, timed_sizes
    from ..autotune.search.static import tune_static
    from ..autotune.search.trial import Problem
    from ..ir.optional import without_inputs
    from ..ir.targets import parse_target

    parse_target(device)
    timed = timed_sizes(mixer, GPU_PROPORTIONS, sizes)
    problem = Problem(mixer, dtype, "cuda", timed, timed)
    kind = getattr(torch, dtype)
    tensors = timed_inputs(mixer, timed, kind)
    work = work_of(without_inputs(mixer, left_out(mixer)), timed, tensors, kind)
    with TrialTable(console(stderr=True), mixer, trials, quiet) as table:
        return tune_static(
            problem, device, trials, work=work, storage=storage, on_trial=table.update
        )
