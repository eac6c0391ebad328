"""The library at its default configurations, compiled for GPUs that are not here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mixc.backends.triton.cross_compile import CompileWorkers
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.signatures import kernel_signatures
from mixc.compiler.estimates import SHARED_LIMIT_BYTES
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.optional import without_inputs
from mixc.ir.plan import Plan
from mixc.ir.targets import parse_target
from mixc.ir.tile import Dot, For, all_ops

SPECS = library()


@pytest.fixture(scope="module")
def workers() -> Iterator[CompileWorkers]:
    with CompileWorkers(count=1) as made:
        yield made


def planned(path: Path, size: int) -> Plan:
    mixer = load_file(path)
    mixer = without_inputs(mixer, [i.name for i in mixer.inputs if i.default is not None])
    return lower(mixer, {"D": size, "E": size}, "bfloat16")


def walks_keys_by_dots(plan: Plan, kernel: str) -> bool:
    """Whether a kernel's loop multiplies tiles that it loads: what is to be pipelined."""
    program = next(k.program for k in plan.kernels if f"{k.program.name}_kernel" == kernel)
    loops = [op for op in program.body if isinstance(op, For)]
    return any(sum(isinstance(op, Dot) for op in all_ops(loop.body)) > 1 for loop in loops)


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_compiles_without_spills_on_tensor_cores(
    path: Path, size: int, workers: CompileWorkers
) -> None:
    plan = planned(path, size)
    targets = [parse_target("cuda:90"), *([parse_target("cuda:120")] if size == 128 else [])]
    for report in workers.compile(emit_module(plan), kernel_signatures(plan), targets):
        assert report.error is None, report
        assert (report.shared_bytes or 0) <= SHARED_LIMIT_BYTES or report.target == "cuda:90"
        if report.target != "cuda:90":
            continue
        assert report.spilled_bytes == 0, report
        if walks_keys_by_dots(plan, report.name):
            assert (report.tensor_core_instructions or 0) > 0, report
            assert (report.async_copies or 0) > 0, report
