"""Numbers of rows are loaded a turn before a walk over chunks needs them, on GPUs."""

from __future__ import annotations

import pytest

from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.plan import Plan
from mixc.ir.targets import AVX2, AnyTarget, parse_target
from mixc.ir.tile import DType, Elementwise, For, Load, operands

from ..schedules.test_recurrences import BACKWARD, SCANS, STEPS, check, matrix, scanned

HOPPER = parse_target("cuda:90")


def plan_of(name: str, target: AnyTarget = HOPPER) -> Plan:
    return lower(load_file(find_spec(name)), {"D": 64, "E": 64}, "bf16", target=target)


def walk_of(plan: Plan) -> For:
    (walk,) = (op for op in plan.kernels[-1].program.body if isinstance(op, For))
    return walk


def waited_for(walk: For) -> set[str]:
    """The buffers of which a turn reads numbers of rows that it loads itself."""
    read = {value.name for op in walk.body for value in operands(op)}
    loads = (op for op in walk.body if isinstance(op, Load) and len(op.out.axes) < 2)
    return {load.buffer for load in loads if load.out.name in read}


@pytest.mark.parametrize(("name", "numbers"), [("simple_gla", {"g"}), ("gated_delta", {"beta"})])
def test_no_turn_waits_for_what_nothing_copies(name: str, numbers: set[str]) -> None:
    walk = walk_of(plan_of(name))
    assert numbers <= {op.buffer for op in walk.body if isinstance(op, Load)}
    assert not numbers & waited_for(walk)
    assert len(walk.carried) > 1


def test_what_triton_copies_stays_and_so_does_all_of_it_on_a_cpu() -> None:
    """What factors are made of, in four bytes, is copied ahead as it is."""
    stays = waited_for(walk_of(plan_of("gated_delta")))
    assert any("decay_to_end" in buffer for buffer in stays)
    assert waited_for(walk_of(plan_of("simple_gla", AVX2))) == {"g"}


def test_values_that_a_product_alone_is_added_to_are_on_their_way_where_registers_hold_them() -> (
    None
):
    """Triton makes a sum's start of them, which it does not copy ahead."""

    def own_rows(name: str, shares: int) -> set[str]:
        plan = lower(
            load_file(find_spec(name)), {"D": 128, "E": 128}, "bf16", shares, target=HOPPER
        )
        walk = walk_of(plan)
        own = [op for op in walk.body if isinstance(op, Load) and "next" not in op.out.name]
        return {op.buffer for op in own}

    assert "v" not in own_rows("kda", shares=8)
    assert "v" in own_rows("gated_delta", shares=8)  # a factor is on the product: copied ahead


@pytest.mark.parametrize(
    "name", ["normalised", "gated delta rule", "delta rule, decay of each entry"]
)
@pytest.mark.parametrize("length", [0, 1, 16, 17, 40])
def test_the_first_and_the_last_turn_read_what_is_theirs(name: str, length: int) -> None:
    check(matrix(STEPS[name]), length, "chunk", dtype="bf16", target=HOPPER)
    check(matrix(STEPS[name], BACKWARD), length, "chunk", dtype="bf16", splits=2, target=HOPPER)


@pytest.mark.parametrize("name", ["hgrn", "rg_lru"])
def test_a_scan_has_its_next_rows_on_their_way(name: str) -> None:
    """It has no products, so that Triton copies nothing of it ahead."""

    def own_rows(target: AnyTarget) -> set[str]:
        plan = lower(load_file(find_spec(name)), {"C": 128}, "bf16", target=target)
        walk = next(op for op in plan.kernels[0].program.body if isinstance(op, For))
        own = [op for op in walk.body if isinstance(op, Load) and "next" not in op.out.name]
        return {op.buffer for op in own}

    assert own_rows(HOPPER) == set()
    assert "x" in own_rows(AVX2)


@pytest.mark.parametrize("name", ["elementwise", "rotating", "running softmax"])
@pytest.mark.parametrize("length", [0, 1, 16, 17, 40])
def test_a_scan_reads_what_is_its_rows(name: str, length: int) -> None:
    check(scanned(SCANS[name]), length, "scan", target=HOPPER)
    check(scanned(SCANS[name], BACKWARD), length, "scan", dtype="bf16", target=HOPPER)


def test_a_scan_of_vectors_is_a_warp_of_channels() -> None:
    """Each lane goes through the rows of its own channel; what has another axis is shared out."""
    (kernel,) = lower(scanned(SCANS["elementwise"]), {"C": 100}, "bf16", target=HOPPER).kernels
    assert {tile.dim: tile.block for tile in kernel.program.blocks} == {"T": 8, "C": 32}
    assert dict(kernel.program.launch)["num_warps"] == 1
    for name, sizes, channels, warps in (("mamba", {"N": 16}, 8, 1), ("aaren", {}, 64, 8)):
        plan = lower(load_file(find_spec(name)), sizes, "bf16", target=HOPPER)
        program = plan.kernels[-1].program
        (tiled,) = (axis.dim for axis in program.grid if axis.tiled)
        assert program.tile(tiled).block == channels
        assert dict(program.launch)["num_warps"] == warps


def test_what_is_made_of_a_row_alone_is_handed_on() -> None:
    """Mamba's step size is a softplus, made where dt was loaded, not for each of 16 places."""
    (kernel,) = lower(load_file(find_spec("mamba")), {"N": 16}, "bf16", target=HOPPER).kernels
    walk, rest = (op for op in kernel.program.body if isinstance(op, For))
    softplus = [op for op in walk.body if isinstance(op, Elementwise) and op.fn == "softplus"]
    assert [op.out in walk.yields for op in softplus] == [True]
    assert all(c.inner.dtype is DType.FLOAT32 for c in walk.carried)
    assert len(rest.carried) == 1  # the turn that is left loads its own rows


@pytest.mark.parametrize("length", [0, 1, 8, 17])
def test_a_scan_of_several_places_reads_what_is_its_rows(length: int) -> None:
    for dtype in ("fp32", "bf16"):
        check(load_file(find_spec("mamba")), length, "scan", dtype=dtype, target=HOPPER)


def test_what_a_loop_inside_reads_stays_where_it_is() -> None:
    """The Ema of MEGA: x is cast for its product and for a loop in the turn."""
    backward = differentiate(load_file(find_spec("ema"))).backward
    check(backward, 21, "scan", target=HOPPER)
