"""The roofline: what a report complains of costs time."""

from dataclasses import replace

import pytest

from mixc.autotune.bench.work import Work
from mixc.autotune.checking.shapes import GPU_PROPORTIONS, timed_sizes
from mixc.autotune.gpu_model.machines import MACHINES
from mixc.autotune.gpu_model.roofline import resident_programs, roofline_us
from mixc.backends.triton.binary_report import KernelReport
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.compiler.schedules.configurations import bind_configuration
from mixc.ir.targets import TARGETS

CAUSAL = load_file(find_spec("causal"))
SIZES = timed_sizes(CAUSAL, GPU_PROPORTIONS)
PLAN = lower(CAUSAL, {"D": 128, "E": 128}, "bfloat16")
PAIRS = 4 * 16 * 4096 * 4097 // 2
WORK = Work(2.0 * 256 * PAIRS, PAIRS, 0)
REPORT = KernelReport("k", "cuda:90", 160, 0, 80 << 10, 64, 16)


def time_us(configuration=None, **changed):
    plan = bind_configuration(PLAN, configuration or {})
    (kernel,) = plan.kernels
    return roofline_us(kernel, replace(REPORT, **changed), SIZES, WORK)


def test_no_time_is_below_the_roofline():
    floor_us = WORK.flops / (MACHINES["cuda:90"].tensor_tflops * 1e6)
    assert floor_us < time_us() < 4 * floor_us


@pytest.mark.parametrize(
    "worse",
    [
        {"spilled_bytes": 64},
        {"tensor_core_instructions": 0},
        {"async_copies": 0},
    ],
)
def test_what_a_report_complains_of_costs_time(worse):
    assert time_us(**worse) > 1.2 * time_us()


def test_few_warps_on_a_multiprocessor_cost_time():
    four = {"num_warps": 4}
    alone = time_us(four, registers=255, shared_bytes=200 << 10)
    assert alone > 1.2 * time_us(four, registers=128, shared_bytes=50 << 10)


def test_few_rows_per_block_of_keys_cost_time():
    assert time_us({"block_rows": 16}) > 1.5 * time_us({"block_rows": 128})


def test_programs_on_a_multiprocessor():
    machine = MACHINES["cuda:90"]
    (kernel,) = PLAN.kernels
    assert resident_programs(kernel, REPORT, machine) == 1  # 8 warps of 160 registers
    small = replace(REPORT, registers=64, shared_bytes=16 << 10)
    assert resident_programs(kernel, small, machine) == 4


def test_machines_are_those_that_are_compiled_for():
    assert set(MACHINES) == {target.name for target in TARGETS}
