"""The pictures of ``mixc tune --plot``: history, distance to the best, importance, roofline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna.distributions import BaseDistribution

    from ..autotune.bench.machine import Machine
    from ..autotune.bench.work import Work
    from ..autotune.search.search import History
    from ..autotune.search.tuned import Tuned
    from ..ir.mixer import Mixer

_FEWEST = 4  # trials that were timed, before they say which knob matters


def draw(tuned: Tuned, folder: Path, work: Work | None, machine: Machine | None) -> list[Path]:
    """PNGs of a search in ``folder``, which is made; those written.

    Importance needs some trials that differ, the roofline what there is to compute (``work``) and
    a ``machine`` that was measured: a picture without its data is not drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Callable[[Axes], None]] = {
        "history": lambda axes: _history(axes, tuned),
        "regret": lambda axes: _regret(axes, tuned.history),
    }
    found = importances(tuned.history)
    if found:
        pictures["importance"] = lambda axes: _importance(axes, found)
    if work is not None and machine is not None:
        pictures["roofline"] = lambda axes: _roofline(axes, tuned, work, machine)
    return [_written(folder / f"{name}.png", fill) for name, fill in pictures.items()]


def pictures_of(mixer: Mixer, tuned: Tuned, folder: Path) -> list[Path]:
    """``draw`` for a search of a mixer's kernels, with what can be known of work and machine: both
    where the forward pass was timed on the device at hand."""
    import torch

    from ..autotune.bench.machine import measured_machine
    from ..autotune.bench.timed_inputs import left_out, timed_inputs
    from ..autotune.bench.work import work_of
    from ..ir.optional import without_inputs

    result = tuned.result
    if result.modelled or result.key.spec != mixer.name:
        return draw(tuned, folder, None, None)
    dtype, sizes = getattr(torch, result.key.dtype), result.sizes
    device = "cpu" if result.key.device.kind == "cpu" else "cuda"
    tensors = timed_inputs(mixer, sizes, dtype)
    work = work_of(without_inputs(mixer, left_out(mixer)), sizes, tensors, dtype)
    return draw(tuned, folder, work, measured_machine(device, dtype))


def _written(path: Path, fill: Callable[[Axes], None]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    fill(figure.subplots())
    figure.savefig(path, dpi=120)
    return path


def best_so_far(times_us: Sequence[float | None]) -> list[float | None]:
    """The fastest of the first n trials, for each n; None before one was right."""

    def faster(best: float | None, time_us: float | None) -> float | None:
        known = [t for t in (best, time_us) if t is not None]
        return min(known, default=None)

    return list(itertools.accumulate(times_us, faster))


def importances(history: History) -> dict[str, float]:
    """How much of what tells fast trials from slow ones is in each knob, the most first.

    Optuna's PED-ANOVA, of the trials that were timed; empty where they are too few.
    """
    import optuna

    timed = [t for t in history.trials if t.outcome.status == "ok"]
    values = {name: {t.configuration[name] for t in timed} for name in _knobs(history)}
    varied = {name: sorted(own) for name, own in values.items() if len(own) > 1}
    if len(timed) < _FEWEST or not varied:
        return {}
    kinds: dict[str, BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(own) for name, own in varied.items()
    }
    study = optuna.create_study()
    for trial in timed:
        params = {name: trial.configuration[name] for name in varied}
        made = optuna.create_trial(params=params, distributions=kinds, value=trial.outcome.time_us)
        study.add_trial(made)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _knobs(history: History) -> list[str]:
    return list(history.trials[0].configuration) if history.trials else []


def _times(history: History) -> list[float | None]:
    return [t.outcome.time_us if t.outcome.status == "ok" else None for t in history.trials]


def _history(axes: Axes, tuned: Tuned) -> None:
    from matplotlib.ticker import MaxNLocator

    times = _times(tuned.history)
    numbers = range(1, len(times) + 1)
    right = [(n, t) for n, t in zip(numbers, times, strict=True) if t is not None]
    axes.plot(*zip(*right, strict=True), "o", markersize=4, label="trial")
    known = [(n, t) for n, t in zip(numbers, best_so_far(times), strict=True) if t is not None]
    axes.step(*zip(*known, strict=True), where="post", label="best so far")
    lost = [n for n, t in zip(numbers, times, strict=True) if t is None]
    axes.plot(lost, [max(t for _, t in right)] * len(lost), "x", color="grey", label="no time")
    if tuned.result.default_time_us is not None:
        axes.axhline(tuned.result.default_time_us, linestyle="--", color="grey", label="default")
    axes.set(xlabel="trial", ylabel="us", yscale="log", title=_title(tuned))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def _regret(axes: Axes, history: History) -> None:
    best = best_so_far(_times(history))
    assert best[-1] is not None
    known = [(n, 100 * (t / best[-1] - 1)) for n, t in enumerate(best, 1) if t is not None]
    axes.step(*zip(*known, strict=True), where="post")
    axes.set(xlabel="trials", ylabel="slower than the best found, %", ylim=(0, None))


def _importance(axes: Axes, found: dict[str, float]) -> None:
    axes.barh([*found][::-1], [*found.values()][::-1])
    axes.set(xlabel="importance (PED-ANOVA)")


def _roofline(axes: Axes, tuned: Tuned, work: Work, machine: Machine) -> None:
    own = work.flops / max(work.bytes, 1)
    ridge = machine.products_gflop_s / machine.copies_gb_s
    ends = (min(own, ridge) / 8, ridge, max(own, ridge) * 8)
    roof = [min(machine.products_gflop_s, machine.copies_gb_s * n) for n in ends]
    axes.plot(ends, roof, color="black", label=machine.sentence)
    times = {"winner": tuned.result.time_us, "default": tuned.result.default_time_us}
    for name, time_us in times.items():
        if time_us is not None:
            axes.plot([own], [work.flops / time_us / 1e3], "o", label=f"{name}: {time_us:,.0f} us")
    axes.set(xlabel="flop per byte of inputs and outputs", ylabel="GFLOP/s", title=_title(tuned))
    axes.set(xscale="log", yscale="log")
    axes.legend(fontsize="small")


def _title(tuned: Tuned) -> str:
    key = tuned.result.key
    return f"{key.spec}, {key.dtype}, {key.device.name}"


__all__ = ["best_so_far", "draw", "importances", "pictures_of"]
