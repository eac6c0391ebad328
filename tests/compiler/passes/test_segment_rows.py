"""Scans in segments of rows, on GPUs."""

from __future__ import annotations

import pytest

from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.roles import shares_of_keys
from mixc.ir.targets import AVX2, parse_target
from mixc.ir.tile import Dot, all_ops

from ..schedules.test_recurrences import BACKWARD, RESET, SCANS, check, scanned

HOPPER = parse_target("cuda:90")
STAY = {
    "of each state": "its states have several axes",
    "coupled": "one state is told by the other's rows",
    "running softmax": "sums are told by the maximum's rows",
}
IN_SEGMENTS = [name for name in SCANS if name not in STAY]


@pytest.mark.parametrize("name", IN_SEGMENTS)
def test_scans_in_segments(name: str) -> None:
    for length, splits in ((37, 2), (37, 3), (5, 2)):  # the last has a segment without rows
        plan = check(scanned(SCANS[name]), length, "loop", splits=splits, target=HOPPER)
        assert [kernel.schedule for kernel in plan.kernels] == ["scan", "loop", "scan"]
    check(scanned(SCANS[name], BACKWARD), 70, "loop", splits=4, target=HOPPER)


def test_a_state_that_is_reset_in_a_segment_leaves_nothing_of_its_start() -> None:
    for name in ("elementwise", "before and after"):
        check(scanned(SCANS[name], RESET), 37, "loop", splits=2, target=HOPPER)


@pytest.mark.parametrize("name", STAY)
def test_scans_that_stay_whole(name: str) -> None:
    plan = check(scanned(SCANS[name]), 37, "scan", splits=2, target=HOPPER)
    assert [kernel.schedule for kernel in plan.kernels] == ["scan"]


def test_rows_that_are_sums_are_made_once() -> None:
    """What is read for a row is large where its channels are sums: s5 reads weights as well."""
    mixer = load_file(find_spec("s5"))
    plan = lower(mixer, {"C": 64, "N": 64}, "bf16", splits=4, target=HOPPER)
    assert "loop" not in {kernel.schedule for kernel in plan.kernels}


@pytest.mark.parametrize("name", ["elementwise", "before and after", "rotating"])
def test_gradients_in_segments(name: str) -> None:
    """Forward once more, and backward: each finds, passes on and runs."""
    plan = check(differentiate(scanned(SCANS[name])).backward, 37, "loop", splits=3, target=HOPPER)
    made = [kernel.schedule for kernel in plan.kernels]
    assert made[:6] == ["scan", "loop", "scan"] * 2


def test_tasks_in_segments_have_blocks_of_their_own() -> None:
    """LightNet's backward pass has scans, of 8 rows a block, beside chunks, whose products take
    16."""
    backward = differentiate(load_file(find_spec("lightnet"))).backward
    plan = lower(backward, {"D": 64, "E": 64}, "bf16", splits=3, target=HOPPER)
    dims = {axis.dim for kernel in plan.kernels for axis in kernel.program.grid}
    assert len({dim for dim in dims if "segments" in dim}) == 4
    for kernel in plan.kernels:
        dots = [op for op in all_ops(kernel.program.body) if isinstance(op, Dot)]
        assert all(kernel.program.tile(dot.over).block >= 16 for dot in dots), kernel.program.name


def test_a_cpu_has_no_segments_of_scans() -> None:
    plan = check(scanned(SCANS["elementwise"]), 37, "scan", splits=2, target=AVX2)
    assert [kernel.schedule for kernel in plan.kernels] == ["scan"]


@pytest.mark.parametrize(
    ("batch", "length", "shares"),
    [(1, 65536, 16), (4, 16384, 4), (16, 4096, 1), (1, 300, 2), (1, 100, 1)],
)
def test_segments_are_as_many_as_keep_a_machine_busy(batch: int, length: int, shares: int) -> None:
    """Each multiprocessor takes 16 programs of one warp; a segment has 128 rows or more."""
    sizes = {"B": batch, "T": length, "C": 4096}
    assert shares_of_keys(load_file(find_spec("hgrn")), sizes, 132, rows=64, beside=2) == shares
