"""Recurrences in chunks as two kernels and three, interpreted in float64, against the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.data_text import read_data, write_data
from mixc.ir.plan import Kernel, Plan
from mixc.ir.targets import AVX2, parse_target
from mixc.ir.tile import Dot, Elementwise, For, Op, Scan, Store, Substitute, all_ops

from ..schedules.test_recurrences import BACKWARD, HALVES, RESET, STEPS, check, matrix


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_any_number_of_kernels_gives_the_same(step: str) -> None:
    check(matrix(step), 37, "chunk", chunk_kernels=3)
    check(matrix(step, BACKWARD), 17, "chunk", chunk_kernels=2, dtype="bf16")


@pytest.mark.parametrize("name", ["normalised", "gated delta rule", *HALVES[:1]])
def test_resets_segments_and_short_sequences(name: str) -> None:
    check(matrix(STEPS[name], RESET), 21, "chunk", chunk_kernels=3)
    check(matrix(STEPS[name]), 37, "chunk", splits=2, chunk_kernels=3)
    for length in (0, 1, 16):
        check(matrix(STEPS[name]), length, "chunk", chunk_kernels=2)


def ops(plan: Plan, number: int) -> list[Op]:
    """The ops of a kernel, those of its loops too."""
    return list(all_ops(plan.kernels[number].program.body))


@pytest.mark.parametrize("name", ["gated_delta", "kda", "gla", "simple_gla"])
def test_what_does_not_depend_on_the_state_is_not_in_the_walk(name: str) -> None:
    mixer = load_file(find_spec(name))
    plan = lower(mixer, {"D": 64, "E": 64}, "bf16", chunk_kernels=3)
    assert len(plan.kernels) == 3
    prepare, carry, read = (ops(plan, number) for number in range(3))
    assert [any(isinstance(op, For) for op in part) for part in (prepare, carry, read)] == [
        False,
        True,
        False,
    ]
    assert not any(isinstance(op, Scan | Substitute) for op in (*carry, *read))
    products = sum(isinstance(op, Dot) for op in carry)
    assert products == (3 if "del" in name or name == "kda" else 1)
    assert {op.buffer for op in read if isinstance(op, Store)} == {"o"}


def test_a_plan_in_parts_reads_back() -> None:
    plan = lower(load_file(find_spec("delta")), {"D": 16, "E": 16}, "bf16", chunk_kernels=3)
    assert read_data(write_data(plan)) == plan


def test_one_kernel_stays_what_it_was() -> None:
    mixer = load_file(find_spec("gated_delta"))
    plan = lower(mixer, {"D": 64, "E": 64}, "bf16", chunk_kernels=1)
    assert len(plan.kernels) == 1
    assert not plan.block_lengths


HOPPER = parse_target("cuda:90")
FEATURES = {"D": 64, "E": 64}


@pytest.mark.parametrize(("name", "kernels"), [("linear_normalized", 2), ("linear", 1)])
def test_feature_maps_with_exponentials_are_not_in_the_walk(name: str, kernels: int) -> None:
    mixer = load_file(find_spec(name))
    plan = lower(mixer, FEATURES, "bf16", target=HOPPER)
    assert len(plan.kernels) == kernels
    assert not any(isinstance(op, Elementwise) and op.fn == "elu" for op in ops(plan, -1))
    assert len(lower(mixer, FEATURES, "fp32", target=HOPPER).kernels) == 1


@pytest.mark.parametrize("target", ["cuda:80", "cuda:90"])
@pytest.mark.parametrize(
    ("name", "kernels"),
    [("gated_delta", 2), ("delta", 2), ("gla", 2), ("kda", 2), ("linear", 1)],
)
def test_long_chains_within_a_chunk_are_prepared_by_default(
    name: str, kernels: int, target: str
) -> None:
    mixer = load_file(find_spec(name))
    assert len(lower(mixer, FEATURES, "bf16", target=parse_target(target)).kernels) == kernels
    assert len(lower(mixer, FEATURES, "fp32", target=parse_target(target)).kernels) == 1


@pytest.mark.parametrize("name", ["gated_delta", "gla", "rwkv7"])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_plans_for_a_cpu_are_in_one_piece(name: str, dtype: str) -> None:
    mixer = load_file(find_spec(name))
    plan, whole = (lower(mixer, FEATURES, dtype, target=AVX2, chunk_kernels=n) for n in (0, 1))
    assert replace(plan, chunk_kernels=1) == whole


# What the library's rules are made of: in 16 bits on a Hopper, in blocks of the default's own.
PREPARED = ("gated delta rule", "decay of each entry", "error of the undecayed state", *HALVES)


@pytest.mark.parametrize("name", PREPARED)
def test_the_default_of_a_hopper_gives_the_same(name: str) -> None:
    for more, length in (("", 37), (BACKWARD, 19), (RESET, 21), ("", 1), ("", 0)):
        plan = check(matrix(STEPS[name], more), length, "chunk", dtype="bf16", target=HOPPER)
        assert any(kernel.program.name.endswith("_prepare") for kernel in plan.kernels)


@pytest.mark.parametrize(
    ("name", "splits", "columns", "rows"),
    [
        ("gated_delta", 1, 64, 16),
        ("gated_delta", 4, 32, 16),
        ("gated_delta", 8, 16, 32),
        ("kda", 8, 16, 16),  # decays by entry stay as they are
        ("gla", 8, 64, 16),  # in segments, there are programs enough
    ],
)
def test_few_heads_share_out_the_columns_of_what_no_segments_can(
    name: str, splits: int, columns: int, rows: int
) -> None:
    sizes = {"D": 128, "E": 128}
    plan = lower(load_file(find_spec(name)), sizes, "bf16", splits, target=HOPPER)
    assert {kernel.program.tile("T").block for kernel in plan.kernels if has_rows(kernel)} == {rows}
    assert plan.kernels[-1].program.tile("E").block == columns


def has_rows(kernel: Kernel) -> bool:
    return any(tile.dim == "T" for tile in kernel.program.tiles)


def test_shared_out_columns_give_the_same() -> None:
    for length in (0, 33, 70):
        mixer = matrix(STEPS["gated delta rule"])
        check(mixer, length, "chunk", splits=8, dtype="bf16", target=HOPPER)


def test_segments_that_only_write_have_more_turns_in_flight() -> None:
    sizes = {"D": 128, "E": 128}
    plan = lower(load_file(find_spec("simple_gla")), sizes, "bf16", 8, target=HOPPER)
    found, *_, run = (dict(kernel.program.launch)["num_stages"] for kernel in plan.kernels)
    assert (found, run) == (4, 3)
