"""What each backend makes of a spec, held against the float64 reference."""

from __future__ import annotations

import math
import os
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TRITON_INTERPRET", "1")

import torch
from torch import Tensor

from mixc.autotune.checking.checking import compare, error_limits, failed
from mixc.autotune.checking.proportions import default_sizes, resized
from mixc.autotune.checking.sampling import sample_inputs
from mixc.autotune.gpu_model.grid import programs_of
from mixc.backends.cpu.build import find_compiler
from mixc.backends.cpu.configure import configure, defaults
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import Watch, run_plan
from mixc.backends.triton.run import TritonRunner
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.compiler.schedules.configurations import bind_configuration
from mixc.ir.binding import Number, bind_sizes
from mixc.ir.errors import SpecError
from mixc.ir.expression import Call, Reduce
from mixc.ir.mixer import Mixer
from mixc.ir.optional import expressions
from mixc.ir.plan import Kernel, Plan
from mixc.ir.rewriting import every_node
from mixc.ir.roles import feature_dims
from mixc.ir.targets import AVX2, AVX512_AMX
from mixc.ir.tile import For, Op

from ..backends.cpu.elsewhere import faults_elsewhere, knows
from .gradients import derivative_differs
from .quick_builds import quick_flags
from .sequences import continued_differs, packed_differs
from .training import gradients_differ, hard_inputs_differ

MIXC = Path(load_text.__code__.co_filename).parents[2]
# The outcomes, best first: those of ``checking``; a tile program of too many ops to execute one by
# one, and a valid spec that is refused.
OUTCOMES = (
    "right", "skipped", "unsupported", "diverges",
    "refused", "wrong", "stopped", "crashed", "not compiled",
)  # fmt: skip
FAILURES = frozenset(OUTCOMES[4:])
# Beyond this share of the largest value plain PyTorch is no yardstick.
_USELESS = {torch.float32: 1e-2, torch.float16: 0.2, torch.bfloat16: 0.5}
# The exact execution of tile programs differs from the reference by the order of sums alone.
_EXACT = 1e-9
_DRAWS = 3
# The most values of tile programs to make, a large one counting for several.
_VALUES, _LARGE = 20_000, 20_000
_INTERPRETED = 40_000
# Between them all that targets differ in: vectors of 8 numbers or 16, dots of pairs, tiles.
_ELSEWHERE = (AVX2, AVX512_AMX)
Runner = Callable[..., Mapping[str, Tensor]]
SEQUENCES: Mapping[str, Callable[[Mixer, Mapping[str, int], int], str]] = {
    "packed": packed_differs,
    "in segments": continued_differs,
}


@dataclass(frozen=True)
class Trial:
    """A spec as text, and how to try it: on which backends, in which precision, from which seed."""

    text: str
    backends: tuple[str, ...] = ("cpu tiles",)
    dtype: str = "float32"
    seed: int = 0
    form: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a trial; ``results`` by backend: an outcome, and a message."""

    results: Mapping[str, tuple[str, str]]
    ops: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def failures(self) -> dict[str, tuple[str, str]]:
        """The results that are none."""
        return {b: r for b, r in self.results.items() if r[0] in FAILURES}


def judge(trial: Trial) -> Verdict:
    """Load a spec, and try it on every backend that is asked for."""
    try:
        mixer = load_text(trial.text, "fuzzed.yaml")
    except SpecError as error:
        return Verdict({"check": ("refused", str(error))})
    except Exception as error:
        return Verdict({"check": ("crashed", _said(error))})
    try:
        problem = Problem.of(mixer, trial)
    except Exception as error:
        return Verdict({"reference": ("crashed", _said(error))}, ops_of(mixer))
    results, seconds = {}, {"reference": problem.reference_s}
    for backend in trial.backends:
        start = cpu_seconds()
        results[backend] = problem.outcome(backend)
        seconds[backend] = cpu_seconds() - start
    return Verdict(results, ops_of(mixer), seconds)


def cpu_seconds() -> float:
    """What this process and those that it waited for have used."""
    times = os.times()
    return sum(times[:4])


def ops_of(mixer: Mixer) -> Counter[str]:
    """The kinds of nodes and functions of a spec, and its forms."""
    found = Counter(type(stage).__name__ for stage in mixer.stages)
    for node in every_node(expressions(mixer)):
        match node:
            case Call(fn=fn) | Reduce(op=fn):
                found[fn] += 1
            case _:
                found[type(node).__name__] += 1
    return found


@dataclass
class Problem:
    """A mixer with inputs and what the reference makes of them."""

    mixer: Mixer
    sizes: Mapping[str, int]
    dtype: torch.dtype
    inputs: Mapping[str, Tensor]
    reference: Mapping[str, Tensor]
    limits: Mapping[str, float]
    useless: str
    seed: int
    reference_s: float

    @classmethod
    def of(cls, mixer: Mixer, trial: Trial) -> Problem:
        """At the sizes that the spec's ``check`` names."""
        sizes = resized(mixer, default_sizes(mixer), dict(mixer.check), {})
        return cls.at(mixer, sizes, getattr(torch, trial.dtype), trial.seed)

    @classmethod
    def at(cls, mixer: Mixer, sizes: Mapping[str, int], dtype: torch.dtype, seed: int) -> Problem:
        """With inputs from a seed."""
        start = cpu_seconds()
        inputs = sample_inputs(mixer, sizes, dtype, seed)
        with torch.no_grad():
            reference = run(mixer, inputs)
            pytorch = run(mixer, inputs, dtype=dtype)
        limits = error_limits(dtype, pytorch, reference)
        took = cpu_seconds() - start
        useless = _useless(mixer, reference, pytorch, dtype)
        return cls(mixer, sizes, dtype, inputs, reference, limits, useless, seed, took)

    def outcome(self, backend: str) -> tuple[str, str]:
        """How one backend does."""
        try:
            if backend == "cpu elsewhere":
                return self._elsewhere()
            if backend == "training":
                return gradients_differ(self.mixer, self.inputs, self.dtype, self.seed)
            if backend == "hard inputs":
                salt = repr(sorted(self.sizes.items()))
                return hard_inputs_differ(self.mixer, self.sizes, self.dtype, self.seed, salt)
            if backend in SEQUENCES:
                return self._verdict(SEQUENCES[backend](self.mixer, self.sizes, self.seed))
            if backend.startswith("backward"):
                return self._backward(_Patience() if backend.endswith("tiles") else None)
            return (
                self._by_tiles(backend) if backend.endswith("tiles") else self._by_kernels(backend)
            )
        except _TooLong as error:
            return "skipped", str(error)
        except Exception as error:
            status = failed(error).status
            return status, str(error) if status == "unsupported" else _said(error)

    # ------------------------------------------------------------------- exactly, op by op

    def _by_tiles(self, backend: str) -> tuple[str, str]:
        """Programs as a CPU gets them, and as a GPU does, executed with every access guarded."""
        shapes = {name: tuple(t.shape) for name, t in self.inputs.items()}
        sizes = bind_sizes(self.mixer, shapes)
        fixed = {d: sizes[d] for d in feature_dims(self.mixer)}
        plan = (
            lower(self.mixer, fixed, "float32")
            if backend == "gpu tiles"
            else _for_cpu(lower(self.mixer, fixed, "float32", recurrence="loop"))
        )
        with torch.no_grad():
            made = run_plan(plan, self.inputs, sizes, watch=_Patience())
        return self._verdict(self._inexact(made))

    def _backward(self, watch: Watch | None) -> tuple[str, str]:
        return self._verdict(derivative_differs(self.mixer, self.inputs, self.seed, watch))

    def _elsewhere(self) -> tuple[str, str]:
        """Kernels for other CPUs: compiled as far as their text goes."""
        sizes = bind_sizes(self.mixer, {name: tuple(t.shape) for name, t in self.inputs.items()})
        fixed = {d: sizes[d] for d in feature_dims(self.mixer)}
        plan = lower(self.mixer, fixed, str(self.dtype).removeprefix("torch."))
        faults = {t.name: faults_elsewhere(plan, t) for t in _ELSEWHERE if knows(t)}
        found = [f"for {name}: {fault}" for name, fault in faults.items() if fault]
        return ("not compiled", found[0]) if found else ("right", "")

    def _verdict(self, message: str) -> tuple[str, str]:
        return ("diverges" if self.useless else "wrong") if message else "right", message

    def _inexact(self, made: Mapping[str, Tensor]) -> str:
        for name, wanted in self.reference.items():
            found = made[name].double()
            if found.shape != wanted.shape:
                return f"{name}: shape {list(found.shape)} instead of {list(wanted.shape)}"
            wanted = wanted.double()
            same = (found == wanted) | (found.isnan() & wanted.isnan())
            error = torch.where(same, 0.0, (found - wanted).abs()).nan_to_num(nan=math.inf)
            scale = _largest(wanted)
            if error.numel() and float(error.max()) > _EXACT * (1 + scale):
                return f"{name}: error {float(error.max()):.3g} of {scale:.3g} in exact arithmetic"
        return ""

    # -------------------------------------------------------------------------- as it runs

    def _by_kernels(self, backend: str) -> tuple[str, str]:
        message = self._compared(backend, self)
        if not message:
            return "right", ""
        if self.useless:
            return "diverges", self.useless
        # Twice PyTorch's error is a matter of luck where that is tiny: other draws decide.
        others = [
            Problem.at(self.mixer, self.sizes, self.dtype, self.seed + 1000 * (1 + more))
            for more in range(_DRAWS)
        ]
        limits = {n: max(p.limits[n] for p in (self, *others)) for n in self.limits}
        for problem in (self, *others):
            problem.limits = limits
            if self._compared(backend, problem):
                return "wrong", message
        return "right", f"by luck: {message}"

    def _compared(self, backend: str, problem: Problem) -> str:
        def runner(
            mixer: Mixer, tensors: Mapping[str, Tensor], params: Mapping[str, Number]
        ) -> Mapping[str, Tensor]:
            with torch.no_grad():
                try:
                    return _RUNNERS[backend](mixer, self.sizes)(tensors, params)
                except Exception as error:
                    raised.append(error)
                    raise

        raised: list[Exception] = []
        found = compare(
            runner,
            problem.mixer,
            problem.inputs,
            {},
            problem.dtype,
            problem.reference,
            problem.limits,
        )
        if raised:
            raise raised[0]
        return found.message


class _TooLong(Exception):
    pass


class _Patience:
    """Counts the values that are made, and gives up."""

    def __init__(self) -> None:
        self.left = float(_VALUES)

    def __call__(self, program: object, place: object, op: object, value: Tensor) -> None:
        self.left -= 1 + value.numel() / _LARGE
        if self.left < 0:
            raise _TooLong(f"more than {_VALUES} values")


def _by_rows(mixer: Mixer, sizes: Mapping[str, int]) -> CpuRunner:
    return CpuRunner(mixer, lower, flags=quick_flags())


def _as_shipped(mixer: Mixer, sizes: Mapping[str, int]) -> CpuRunner:
    return CpuRunner(mixer, lower)


def _in_chunks(mixer: Mixer, sizes: Mapping[str, int]) -> CpuRunner:
    return CpuRunner(mixer, lower, {"by_rows": 0}, flags=quick_flags())


def _interpreted(mixer: Mixer, sizes: Mapping[str, int]) -> TritonRunner:
    """Triton's interpreter takes about 50 us an op, of every program of a grid."""

    def bind(plan: Plan, chosen: Mapping[str, int]) -> Plan:
        bound = bind_configuration(plan, chosen)
        if sum(_interpreted_ops(kernel, sizes) for kernel in bound.kernels) > _INTERPRETED:
            raise _TooLong(f"more than {_INTERPRETED} ops to interpret")
        return bound

    return TritonRunner(mixer, lower, lambda sizes, dtype: {}, bind)


_RUNNERS: Mapping[str, Callable[[Mixer, Mapping[str, int]], Runner]] = {
    "cpu": _by_rows,
    "cpu as shipped": _as_shipped,
    "cpu in chunks": _in_chunks,
    "interpreter": _interpreted,
}


def _interpreted_ops(kernel: Kernel, sizes: Mapping[str, int]) -> int:
    """The most ops that a launch executes, by the longest dim where a loop's end is computed."""
    blocks = {tile.symbol: tile.block for tile in kernel.program.tiles}
    longest = max(sizes.values(), default=1)

    def count(ops: Sequence[Op]) -> int:
        loops = [op for op in ops if isinstance(op, For)]
        turns = [-(-longest // _step(loop, blocks)) for loop in loops]
        inside = (n * count(loop.body) for n, loop in zip(turns, loops, strict=True))
        return len(ops) + sum(inside)

    return programs_of(kernel, sizes) * count(kernel.program.body)


def _step(loop: For, blocks: Mapping[str, int]) -> int:
    return blocks[loop.step] if isinstance(loop.step, str) else loop.step


def _for_cpu(plan: Plan) -> Plan:
    return configure(plan, defaults(find_compiler().target), {})


def _useless(
    mixer: Mixer,
    reference: Mapping[str, Tensor],
    pytorch: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> str:
    """Why the reference can't tell right from wrong; empty where it can."""
    for name, wanted in reference.items():
        if not wanted.is_floating_point():
            continue
        # The log of a total is -inf where nothing is seen.
        if wanted.isnan().any() or (wanted == math.inf).any():
            return f"{name} is not finite"
        error = (pytorch[name].double() - wanted)[wanted.isfinite()].abs().nan_to_num(nan=math.inf)
        if error.numel() and float(error.max()) > _USELESS[dtype] * max(_largest(wanted), 1e-30):
            return f"plain PyTorch is {float(error.max()):.2g} off in {name}"
    return ""


def _largest(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0


def _said(error: Exception) -> str:
    """An error with the place in our own code that it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f.filename.startswith(str(MIXC))]
    place = f"{Path(ours[-1].filename).relative_to(MIXC)}:{ours[-1].name}" if ours else "outside"
    return f"{type(error).__name__} in {place}: {str(error)[:500]}"
