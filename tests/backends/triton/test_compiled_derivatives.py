"""Backward passes at their default configurations, compiled for a GPU that is not here."""

import pytest

from mixc.backends.triton.binary_report import KernelReport
from mixc.backends.triton.cross_compile import cross_compile
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.signatures import kernel_signatures
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.optional import without_inputs
from mixc.ir.plan import Plan
from mixc.ir.roles import feature_dims
from mixc.ir.targets import Target, parse_target
from mixc.ir.tile import For

HOPPER = parse_target("cuda:90")
# Bytes that backward passes are known to spill on a Hopper, by the size of their features.
SPILLS = {
    # A turn that has all of a delta rule in it: its walks spill nothing in two kernels each, which
    # would be more than seven.
    ("gated_delta", 128): 48,
    # Sines and cosines of many periods: what the slow path of a division saves.
    ("s4d", 64): 12 + 12,
}
# Kernels of a backward pass, those of Flash Linear Attention for a gated delta rule being 7.
MOST_KERNELS = 7
MAPS = [
    ("ema", 128),  # many channels, summed over all rows
    ("mamba", 64),  # channels beside rows
    ("titans", 128),  # loads that go across memory
    ("pointer", 128),  # a product of three axes
    ("s4d", 64),  # sums over rows for each channel and entry of its state
    ("lru", 64),
    ("gru", 128),  # three gates, in tiles of four
    ("s4d_conv", 64),  # loops over all taps, and what stands by for those after them
]


def backward_plan(name: str, size: int, target: Target = HOPPER) -> Plan:
    """The backward pass of a call with all that has no default."""
    mixer = load_file(find_spec(name))
    mixer = without_inputs(mixer, [i.name for i in mixer.inputs if i.default is not None])
    sizes = {**(dict(mixer.bench[0]) if mixer.bench else {}), "D": size, "E": size}
    backward = differentiate(mixer).backward
    features = feature_dims(backward)
    sizes = {dim: n for dim, n in sizes.items() if dim in features}
    return lower(backward, sizes, "bfloat16", target=target)


def compiled(plan: Plan, target: Target = HOPPER) -> list[KernelReport]:
    return cross_compile(emit_module(plan), kernel_signatures(plan), [target])


@pytest.mark.parametrize("size", [64, 128])
def test_masked_attention_spills_nothing(size: int) -> None:
    plan = backward_plan("causal", size)
    sweeps = {f"{k.program.name}_kernel" for k in plan.kernels if k.schedule == "flash"}
    assert len(sweeps) == 2
    assert len(plan.kernels) <= 5  # of these, row products and a sum of heads for keys and values
    for report in compiled(plan):
        assert (report.error, report.spilled_bytes) == (None, 0), report
        if report.name in sweeps:
            assert (report.tensor_core_instructions or 0) > 0, report
            assert (report.async_copies or 0) > 0, report


@pytest.mark.parametrize("name", ["fox", "softcap", "seqpe"])
def test_factors_of_the_queries_gradients_leave_the_registers(name: str) -> None:
    """128 rows go at a time: two groups of warps, each with products of its own."""
    plan = backward_plan(name, 128)
    for kernel, report in zip(plan.emitted, compiled(plan), strict=True):
        if kernel.schedule == "flash" and kernel.program.grid[0].descending:
            assert kernel.program.tile("I").block == 128
            assert (report.error, report.spilled_bytes) == (None, 0), report


@pytest.mark.parametrize("name", ["simple_gla", "gla", "gated_delta"])
def test_recurrences_go_in_chunks_on_tensor_cores(name: str) -> None:
    plan = backward_plan(name, 128)
    chunks = {f"{k.program.name}_kernel": k.program for k in plan.kernels if k.schedule == "chunk"}
    assert chunks
    assert all(kernel.schedule != "loop" for kernel in plan.kernels)
    assert len(plan.kernels) <= MOST_KERNELS
    for report in compiled(plan):
        assert report.error is None, report
        assert (report.spilled_bytes or 0) <= SPILLS.get((name, 128), 0), report
        if report.name in chunks:
            walks = any(isinstance(op, For) for op in chunks[report.name].body)
            assert (report.tensor_core_instructions or 0) > 0, report
            assert (report.async_copies or 0) > 0 or not walks, report


@pytest.mark.parametrize(("name", "size"), MAPS)
def test_what_goes_past_tensor_cores_stays_in_registers(name: str, size: int) -> None:
    for report in compiled(backward_plan(name, size)):
        assert report.error is None, report
        assert (report.spilled_bytes or 0) <= SPILLS.get((name, size), 0), report


@pytest.mark.parametrize("target", ["cuda:80", "cuda:120"])
def test_states_have_room_where_factors_are_in_registers(target: str) -> None:
    other = parse_target(target)
    for report in compiled(backward_plan("gla", 128, other), other):
        assert (report.error, report.spilled_bytes) == (None, 0), report


@pytest.mark.parametrize("target", ["cuda:80", "cuda:100", "cuda:120"])
def test_other_targets_take_masked_attention(target: str) -> None:
    other = parse_target(target)
    for report in compiled(backward_plan("causal", 64, other), other):
        assert (report.error, report.spilled_bytes) == (None, 0), report
        assert (report.shared_bytes or 0) <= other.shared_memory_bytes, report
