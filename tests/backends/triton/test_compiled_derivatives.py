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
from mixc.ir.targets import parse_target
from mixc.ir.tile import For

HOPPER = parse_target("cuda:90")
# Bytes that kernels of these are known to spill at 128: a state that is read along both axes is
# 64 registers of a thread beside what the chunk's products take.
SPILLS = {"simple_gla": 4, "gla": 16, "gated_delta": 92}


def backward_plan(name: str, size: int) -> Plan:
    """The backward pass of a call with all that has no default."""
    mixer = load_file(find_spec(name))
    mixer = without_inputs(mixer, [i.name for i in mixer.inputs if i.default is not None])
    sizes = {"D": size, "E": size}
    return lower(differentiate(mixer).backward, sizes, "bfloat16", target=HOPPER)


def compiled(plan: Plan) -> list[KernelReport]:
    return cross_compile(emit_module(plan), kernel_signatures(plan), [HOPPER])


@pytest.mark.parametrize("size", [64, 128])
def test_masked_attention_spills_nothing(size: int) -> None:
    plan = backward_plan("causal", size)
    sweeps = {f"{k.program.name}_kernel" for k in plan.kernels if k.schedule == "flash"}
    assert len(sweeps) == 2
    assert len(plan.kernels) <= 4
    for report in compiled(plan):
        assert (report.error, report.spilled_bytes) == (None, 0), report
        if report.name in sweeps:
            assert (report.tensor_core_instructions or 0) > 0, report
            assert (report.async_copies or 0) > 0, report


@pytest.mark.parametrize("name", ["simple_gla", "gla", "gated_delta"])
def test_recurrences_go_in_chunks_on_tensor_cores(name: str) -> None:
    plan = backward_plan(name, 128)
    chunks = {f"{k.program.name}_kernel": k.program for k in plan.kernels if k.schedule == "chunk"}
    assert chunks
    assert all(kernel.schedule != "loop" for kernel in plan.kernels)
    for report in compiled(plan):
        assert report.error is None, report
        assert (report.spilled_bytes or 0) <= SPILLS.get(name, 0), report
        if report.name in chunks:
            walks = any(isinstance(op, For) for op in chunks[report.name].body)
            assert (report.tensor_core_instructions or 0) > 0, report
            assert (report.async_copies or 0) > 0 or not walks, report
