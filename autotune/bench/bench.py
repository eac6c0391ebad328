"""Our kernels beside their peers: checked on a short sequence, then timed in turns."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ...backends.reference.evaluate import run
from ...ir.binding import Number
from ...ir.errors import UnsupportedError
from ...ir.mixer import Mixer
from ...ir.optional import without_inputs
from ..checking.gradients import Measure, gradients_of, outputs_of
from ..checking.limits import LARGEST_LIMIT
from ..checking.memory import within_free_memory
from ..checking.rounding import rounding_errors, wider_limits
from ..checking.sampling import sample_inputs
from ..checking.shapes import checked_sizes
from ..checking.tolerances import error_limit, error_of, errors_of, scales_of
from .all_peers import PEERS
from .machine import Machine, measured_machine
from .measuring import Clock, timing_of
from .peers import Call, Peer, Setting
from .timed_inputs import left_out, timed_inputs
from .training_step import training_step
from .work import Work, work_of

OURS = "mixc"
_FAR = 5.0  # times the second quickest row: no turns more than two would bring it nearer
_LONG_US = 1e6  # a call that takes longer is not warmed up twice
_ENDLESS_US = 4e6  # of a peer far behind: the call that warms it up is its only one
# A peer that rounds in another place is no other function: it gets this much more room.
_PEER_ROOM = 4.0


@dataclass(frozen=True, slots=True)
class Row:
    """One implementation: how fast, or why not at all.

    ``status``: ``timed``; ``not sayable``: it can't express the spec; ``broken``: it fails, or
    computes something else. Spreads are distances between quartiles. ``compared``: our time is
    compared to its time; not to that of the reference, which is no user's code. Where training is
    timed, the time is that of forward and backward pass, and the backward pass has its own, too.
    """

    name: str
    what: str
    status: Literal["timed", "not sayable", "broken"]
    message: str = ""
    time_us: float | None = None
    spread_us: float | None = None
    quartiles_us: tuple[float, float] | None = None
    gflop_s: float | None = None
    gb_s: float | None = None
    share: float | None = None  # of the machine's rate of products, or of copies, as bounds it
    ratio: float | None = None  # of the fastest peer's time to this one's
    first_call_s: float | None = None
    error: float | None = None
    compared: bool = True
    backward_us: float | None = None
    backward_ratio: float | None = None

    @property
    def is_opponent(self) -> bool:
        """Whether it was timed, and is what a user would run instead of ours."""
        return self.name != OURS and self.compared and self.time_us is not None

    @property
    def middle_half(self) -> tuple[float, float]:
        """Between which half of all times lie; of a row that was timed."""
        assert self.time_us is not None
        return self.quartiles_us or (self.time_us, self.time_us)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The rows for one spec at one set of sizes, ours first."""

    spec: str
    dtype: str
    device: str
    sizes: Mapping[str, int]
    work: Work | None
    rounds: int
    rows: tuple[Row, ...]
    grad: bool = False
    machine: Machine | None = None

    @property
    def ratio(self) -> float | None:
        """How many times faster we are than the fastest peer."""
        return self.rows[0].ratio

    @property
    def verdict(self) -> Literal["faster", "slower", "tie"] | None:
        """Against the fastest peer; a tie where the middle halves of both's times overlap."""
        own = self.rows[0]
        peers = [r for r in self.rows if r.is_opponent]
        if own.time_us is None or not peers:
            return None
        best = min(peers, key=lambda r: r.time_us or math.inf)
        assert best.time_us is not None
        (low, high), (least, most) = own.middle_half, best.middle_half
        if max(low, least) <= min(high, most):
            return "tie"
        return "faster" if own.time_us < best.time_us else "slower"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        made = {
            "spec": self.spec,
            "dtype": self.dtype,
            "device": self.device,
            "machine": None if self.machine is None else asdict(self.machine),
            "grad": self.grad,
            "sizes": dict(self.sizes),
            "flops": None if self.work is None else self.work.flops,
            "visible_pairs": None if self.work is None else self.work.pairs,
            "rounds": self.rounds,
            "ratio": self.ratio,
            "verdict": self.verdict,
        }
        return {**made, "rows": [asdict(row) for row in self.rows]}


def bench(
    mixer: Mixer,
    ours: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    sizes: Mapping[str, int],
    dtype: torch.dtype,
    *,
    device: str = "cpu",
    peers: Sequence[str] = (),
    rounds: int | None = None,
    params: Mapping[str, Number] = {},
    grad: bool = False,
) -> Benchmark:
    """Time a mixer's kernels, in turns with peers.

    Args:
        ours: the kernels; gives outputs by name.
        grad: time forward and backward, of a loss that reads the first output.
        peers: names from ``PEERS``.
        rounds: of A B C A B C; by default as many as half a second a row takes, at least five.
    """
    mixer = without_inputs(mixer, left_out(mixer))
    measure = gradients_of(mixer, dtype, seed=1) if grad else outputs_of
    makers: dict[str, Peer] = {OURS: lambda setting: _our_call(ours, setting, measure)}
    makers |= {name: PEERS[name] for name in peers}
    tensors = timed_inputs(mixer, sizes, dtype, device=device, params=params)
    setting = Setting(mixer, sizes, tensors, dtype, params)
    rows: dict[str, Row] = {}
    calls: dict[str, _Timed] = {}
    trained = mixer.outputs[0].name if grad else None
    with torch.no_grad(), within_free_memory():
        short, own = _short(setting, device, outputs_of), _short(setting, device, measure)
        for name, make in makers.items():
            checked = own if name == OURS else short
            rows[name], call = _ready(name, make, setting, checked, trained)
            if call is not None:
                calls[name] = call
        work = None if grad else work_of(mixer, sizes, tensors, dtype, params)
        count = _time(rows, calls, device, rounds)
    machine = measured_machine(device, dtype)
    made = tuple(_compared([_with_rates(row, work, machine) for row in rows.values()]))
    shown = str(dtype).removeprefix("torch.")
    return Benchmark(mixer.name, shown, device, dict(sizes), work, count, made, grad, machine)


# What is timed of a row: the call; or the step, and its backward pass.
_Timed = tuple[Callable[[], Any], ...]


def _our_call(
    ours: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]], setting: Setting, measure: Measure
) -> Call:
    """What is checked of it is measured, outputs or gradients."""
    return Call(
        "generated kernels",
        lambda: ours(setting.tensors),
        dict,
        checked=lambda: measure(ours, setting.tensors),
        operands=tuple(setting.tensors.values()),
    )


@dataclass(frozen=True)
class _Short:
    """A short sequence, what the reference makes of it, and how far off each of that may be."""

    setting: Setting
    wanted: Mapping[str, Tensor]
    scales: Mapping[str, float]
    limits: Mapping[str, float]
    # In a draw, what rounding does to the equations of the backward pass; no name for outputs.
    rounding: Callable[[int], Mapping[str, float]]


def _short(setting: Setting, device: str, measure: Measure) -> _Short:
    mixer, dtype, params = setting.mixer, setting.dtype, setting.params
    sizes = checked_sizes(mixer, setting.sizes, params)
    inputs = sample_inputs(mixer, sizes, dtype, seed=1, params=params)
    wanted = measure(lambda given: run(mixer, given, params), inputs)
    plain = measure(lambda given: run(mixer, given, params, dtype=dtype), inputs)
    gradients = measure is not outputs_of
    limits = {
        name: min(_cap(dtype), error_limit(dtype, error))
        for name, error in errors_of(dtype, plain, wanted, gradients).items()
    }
    moved = {name: tensor.to(device) for name, tensor in inputs.items()}

    def rounding(draw: int) -> Mapping[str, float]:
        return rounding_errors(mixer, inputs, params, dtype, measure, draw) if gradients else {}

    short = Setting(mixer, sizes, moved, dtype, params)
    return _Short(short, wanted, scales_of(dtype, wanted, gradients), limits, rounding)


def _ready(
    name: str, make: Peer, setting: Setting, short: _Short, trained: str | None
) -> tuple[Row, _Timed | None]:
    """The row so far, and what to time where the short sequence came out right.

    ``trained``: the output that a loss reads, where forward and backward are timed.
    """
    try:
        call = make(short.setting)
        results = call.results((call.checked or call.run)())
    except UnsupportedError as error:
        return Row(name, "", "not sayable", str(error)), None
    except Exception as error:  # a peer may raise anything
        return Row(name, "", "broken", _first_line(error)), None
    if name == OURS:
        error_found, message = _ours_judged(results, short)
    else:
        error_found, message = _judged(results, short, short.limits, _PEER_ROOM, call.lacks)
    row = Row(name, call.what, "timed", error=error_found, compared=call.compared)
    if message:
        return replace(row, status="broken", message=message), None
    try:
        start = time.perf_counter()
        full = make(setting)
        timed = _timed_parts(full, trained)
        timed[0]()
        row = replace(row, what=full.what, first_call_s=time.perf_counter() - start)
    except UnsupportedError as error:
        return replace(row, status="not sayable", message=str(error)), None
    except Exception as error:
        if "can't allocate memory" in str(error):
            message = "at these sizes it takes more memory than is free"
            return replace(row, status="not sayable", message=message), None
        return replace(row, status="broken", message=_first_line(error)), None
    return row, timed


def _timed_parts(call: Call, trained: str | None) -> _Timed:
    if trained is None:
        return (call.run,)
    step = training_step(call, trained)
    return step.whole, step.backward


def _ours_judged(results: Mapping[str, Tensor], short: _Short) -> tuple[float | None, str]:
    """By plain torch's error, and gradients then by what rounding does to their own equations."""
    dtype = short.setting.dtype
    found = _judged(results, short, short.limits)
    if not found[1]:
        return found
    for wider in wider_limits(dtype, short.limits, short.rounding):
        own = {name: min(_cap(dtype), limit) for name, limit in wider.items()}
        found = _judged(results, short, own)
        if not found[1]:
            break
    return found


def _cap(dtype: torch.dtype) -> float:
    return LARGEST_LIMIT[str(dtype).removeprefix("torch.")]


def _judged(
    results: Mapping[str, Tensor],
    short: _Short,
    limits: Mapping[str, float],
    room: float = 1.0,
    lacks: Collection[str] = (),
) -> tuple[float | None, str]:
    worst = 0.0
    for name, wanted in short.wanted.items():
        if name in lacks:
            continue
        if name not in results:
            return None, f"it gives no {name}"
        if results[name].shape != wanted.shape:
            return None, f"{name}: shape {list(results[name].shape)}, not {list(wanted.shape)}"
        error = error_of(results[name], wanted, short.scales[name])
        limit = room * limits[name]
        if not error <= limit:
            return error, f"wrong: {name} is off by {error:.2g}, limit {limit:.2g}"
        worst = max(worst, error)
    return worst, ""


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _time(
    rows: dict[str, Row],
    calls: Mapping[str, _Timed],
    device: str,
    rounds: int | None,
) -> int:
    """Fill in the times; returns the number of rounds."""
    if not calls:
        return 0
    clock = Clock(device)
    warm = {n: [_warmed(clock, part) for part in timed] for n, timed in calls.items()}
    behind = far_behind({name: sum(times) for name, times in warm.items()})
    once = {name for name in behind if sum(warm[name]) > _ENDLESS_US}
    turning = [(n, part) for n, timed in calls.items() if n not in once for part in timed]
    few = {place for place, (name, _) in enumerate(turning) if name in behind}
    gc.collect()
    gc.disable()
    try:
        times = clock.interleaved([part for _, part in turning], rounds, few=few)
    finally:
        gc.enable()
    found = iter(times)
    for name, timed in calls.items():
        own = [[one] for one in warm[name]] if name in once else [next(found) for _ in timed]
        first, *more = (timing_of(one) for one in own)
        backward_us = more[0].time_us if more else None
        rows[name] = replace(
            rows[name],
            time_us=first.time_us,
            spread_us=first.spread_us,
            quartiles_us=first.quartiles_us,
            backward_us=backward_us,
        )
    return max(len(own) for own in times)


def _warmed(clock: Clock, part: Callable[[], Any]) -> float:
    """Microseconds of a call; a short one has run once more, as fresh memory is slow at first."""
    first = clock.once(part)
    return first if first > _LONG_US else clock.once(part)


def far_behind(times: Mapping[str, float]) -> set[str]:
    """The peers so slow that two turns say all that there is to know of them: ``_FAR`` times the
    second quickest row, so that a ratio is always one of two rows that had every turn."""
    if len(times) < 3:
        return set()
    second = sorted(times.values())[1]
    return {name for name, time in times.items() if name != OURS and time > _FAR * second}


def _with_rates(row: Row, work: Work | None, machine: Machine) -> Row:
    if row.time_us is None or work is None:
        return row
    return replace(
        row,
        gflop_s=work.flops / row.time_us / 1e3,
        gb_s=work.bytes / row.time_us / 1e3,
        share=machine.share(work, row.time_us),
    )


def _compared(rows: list[Row]) -> list[Row]:
    times = [r.time_us for r in rows if r.is_opponent and r.time_us is not None]
    if not times:
        return rows
    backward = [r.backward_us for r in rows if r.is_opponent and r.backward_us is not None]

    def ratio(fastest: Sequence[float], time_us: float | None) -> float | None:
        return None if time_us is None or not fastest else min(fastest) / time_us

    return [
        replace(r, ratio=ratio(times, r.time_us), backward_ratio=ratio(backward, r.backward_us))
        if r.compared
        else r
        for r in rows
    ]
