"""Backward passes at their default configurations, compiled for a GPU that is not here."""

import pytest

from mixc.backends.triton.cross_compile import cross_compile
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.signatures import kernel_signatures
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.targets import parse_target


@pytest.mark.parametrize("size", [64, 128])
def test_masked_attention_spills_nothing(size: int) -> None:
    derivative = differentiate(load_file(find_spec("causal")))
    plan = lower(derivative.backward, {"D": size, "E": size}, "bfloat16")
    sweeps = {f"{k.program.name}_kernel" for k in plan.kernels if k.schedule == "flash"}
    assert len(sweeps) == 2
    assert len(plan.kernels) <= 4
    made = cross_compile(emit_module(plan), kernel_signatures(plan), [parse_target("cuda:90")])
    for report in made:
        assert (report.error, report.spilled_bytes) == (None, 0), report
        if report.name in sweeps:
            assert (report.tensor_core_instructions or 0) > 0, report
            assert (report.async_copies or 0) > 0, report
