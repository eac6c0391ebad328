"""The library at its default configurations, compiled for GPUs that are not here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mixc.backends.triton.binary_report import KernelReport
from mixc.backends.triton.cross_compile import CompileWorkers
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.signatures import kernel_signatures
from mixc.compiler.language.find import find_spec, library
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.errors import ArgumentError
from mixc.ir.optional import without_inputs
from mixc.ir.plan import Kernel, Plan
from mixc.ir.roles import feature_dims
from mixc.ir.targets import EVERY_GPU, Target, parse_target
from mixc.ir.tile import Cast, Dot, Elementwise, For, Load, Op, Rename, all_ops
from mixc.runtime.compiling import check_derived_sizes

SPECS = library()
# Bytes that these are known to spill at 64 or 128, mostly addresses from before the loop.
SPILLS = {
    "mesa": 1300,
    "seq2seq": 256,
    "titans_chunked": 256,
    # Beside its table of weights, what a masked product makes finite; it may not stand under a
    # condition (see device_functions).
    "synthesizer": 16,
    # Comparisons of tokens for each pair, beside the sums: what a byte for each pair cost before.
    "ngram_head": 8,
    # A byte for each pair of what was chosen, beside the sums; its place among the cells of a head.
    "recycled": 4,
    "sea": 40,
    # ptxas's own choice for more warps at once, in a scan of a running maximum: 48 registers; none
    # where it may take 64. Likewise a selection among the tokens of each event: 64, none at 70.
    "combiner_axial": 4,
    "emllm": 4,
    # The same where a choice makes its scores: 128 registers, none at 136 (or where 128 are asked).
    "tome": 12,
    # Features of pairs of channels: 273 and 256 rows of a state, and of queries and keys.
    "based": 580,
    "rebased": 204,
    # Decays by entry beside a triangle, four kinds of pairs: 0 bytes in 1.2 to 1.6 times the time.
    "rwkv7": 32,
    # Cosines and sines of the same places, two tables at once: beside both, what reduces an angle.
    "lightnet_2d": 8,
    # Two states of 128 x 128 and what is written to them in one program: what a step attends to is
    # read from all channels of its memory.
    "titans_mac": 620,
}
RECURRENT = ("chunk", "scan", "loop")
# Attentions at both sizes; a recurrence, of which a kernel takes seconds to compile, at the larger.
CASES = [
    pytest.param(path, size, id=f"{path.stem}-{size}")
    for path in SPECS
    for size in ((128,) if path.parent.name == "recurrence" else (64, 128))
]


@pytest.fixture(scope="module")
def workers() -> Iterator[CompileWorkers]:
    with CompileWorkers(count=1) as made:
        yield made


@pytest.fixture(scope="module")
def compiled(workers: CompileWorkers) -> Compiled:
    return Compiled(workers, {})


@dataclass(frozen=True)
class Compiled:
    """Reports of kernels, one for all that have the same text: a third of a selection's kernels
    are the same at both sizes, or in several specs."""

    workers: CompileWorkers
    known: dict[tuple[str, ...], KernelReport]

    def __call__(self, plan: Plan, target: Target) -> list[KernelReport]:
        source = emit_module(plan)
        kernels = {kernel.name: kernel for kernel in kernel_signatures(plan)}
        functions = [f for f in ast.parse(source).body if isinstance(f, ast.FunctionDef)]
        parts = {f.name: ast.unparse(f) for f in functions if f.decorator_list}
        called = "\n".join(text for name, text in parts.items() if name not in kernels)
        keys = {
            name: (
                re.sub(rf"\b{name}\b", "kernel", parts[name]),
                str(replace(kernel, name="kernel")),
                called,
                target.name,
            )
            for name, kernel in kernels.items()
        }
        new = {key: kernels[name] for name, key in keys.items() if key not in self.known}
        made = self.workers.compile(source, list(new.values()), [target])
        self.known.update(zip(new, made, strict=True))
        return [replace(self.known[key], name=name) for name, key in keys.items()]


def planned(path: Path, size: int, target: Target) -> Plan:
    mixer = load_file(path)
    mixer = without_inputs(mixer, [i.name for i in mixer.inputs if i.default is not None])
    features = feature_dims(mixer)
    timed = dict(mixer.bench[0]) if mixer.bench else {}
    square = dict.fromkeys(features & {"P"}, size)  # recurrent weights: from each place to each
    sizes = {d: n for d, n in {**square, **timed, "D": size, "E": size}.items() if d in features}
    plan = lower(mixer, sizes, "bfloat16", target=target)
    try:
        check_derived_sizes(plan)
    except ArgumentError:  # features of D * D: of few channels, as it is timed
        own = {d: n for d, n in timed.items() if d in features}
        plan = lower(mixer, {**sizes, **own}, "bfloat16", target=target)
        check_derived_sizes(plan)
    return plan


def kernel_of(plan: Plan, name: str) -> Kernel:
    return next(k for k in plan.kernels if f"{k.program.name}_kernel" == name)


def walks_keys_by_dots(kernel: Kernel) -> bool:
    """Whether a kernel's loop multiplies tiles that it loads."""
    loops = [op for op in kernel.program.body if isinstance(op, For)]
    return any(sum(isinstance(op, Dot) for op in all_ops(loop.body)) > 1 for loop in loops)


def is_pipelined(kernel: Kernel) -> bool:
    """Whether its loads can be: a loop within each turn keeps the compiler from it, over rows of a
    recurrence or over what a score adds up."""
    loops = [op for op in kernel.program.body if isinstance(op, For)]
    if kernel.schedule not in RECURRENT:  # the loop of the products itself may be an inner one
        inner = [op for op in all_ops(kernel.program.body) if isinstance(op, For)]
        loops = [loop for loop in inner if any(isinstance(op, Dot) for op in loop.body)]
        return any(not any(isinstance(op, For) for op in loop.body) for loop in loops)
    if any(isinstance(op, For) for loop in loops for op in all_ops(loop.body)):
        return False
    factors = [ways for loop in loops for op in loop.body if (ways := products_of(loop, op))]
    return not factors or any(len(ways) == 1 for ways in factors)


def products_of(loop: For, load: Op) -> set[str]:
    """The axes along which products go whose factor is a tile that is loaded in each turn. The
    compiler copies ahead into one layout, or not at all: tokens that are keys and values."""
    if not isinstance(load, Load):
        return set()
    same, along = {load.out.name}, set[str]()
    for op in loop.body:
        if isinstance(op, Cast | Rename) and op.x.name in same:
            same.add(op.out.name)
        if isinstance(op, Elementwise) and any(x.name in same for x in op.args):
            same |= {op.out.name} if op.out.axes == load.out.axes else set()
        if isinstance(op, Dot) and {op.a.name, op.b.name} & same:
            along.add(op.over)
    return along


@pytest.mark.parametrize(("path", "size"), CASES)
def test_compiles_without_spills_on_tensor_cores(path: Path, size: int, compiled: Compiled) -> None:
    others = [] if size == 64 or path.parent.name == "recurrence" else ["cuda:120"]
    for target in [parse_target(name) for name in ("cuda:90", *others)]:
        plan = planned(path, size, target)
        for report in compiled(plan, target):
            check(report, kernel_of(plan, report.name), target, SPILLS.get(path.stem, 0))


@pytest.mark.parametrize("name", ["gated_delta", "comba", "simple_gla", "mamba2"])
@pytest.mark.parametrize("target", ["cuda:80", "cuda:120"])
def test_a_state_and_its_copy_as_a_factor_fit_registers(
    name: str, target: str, workers: CompileWorkers
) -> None:
    other = parse_target(target)
    plan = planned(find_spec(name), 128, other)
    for report in workers.compile(emit_module(plan), kernel_signatures(plan), [other]):
        assert (report.error, report.spilled_bytes) == (None, 0), report


def check(report: KernelReport, kernel: Kernel, target: Target, spills: int) -> None:
    """What every kernel of the library keeps to."""
    assert report.error is None, report
    # What a recurrence holds in shared memory is held anywhere.
    room = EVERY_GPU if kernel.schedule in RECURRENT else target
    assert (report.shared_bytes or 0) <= room.shared_memory_bytes, report
    if target.name != "cuda:90":
        return
    assert (report.spilled_bytes or 0) <= spills, report
    if walks_keys_by_dots(kernel):
        assert (report.tensor_core_instructions or 0) > 0, report
        assert (report.async_copies or 0) > 0 or not is_pipelined(kernel), report
