"""The knobs of recurrences; those of attentions are tested where they are tuned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.compiler.schedules.configurations import bind_configuration, knobs, refusal
from mixc.ir.errors import PromiseError
from mixc.ir.plan import Plan
from mixc.ir.targets import parse_target
from mixc.ir.verify_plan import verify_plan

MATRIX = """
mixer: matrix
inputs: {q: [B, T, H, D], k: [B, T, H, D], v: [B, T, H, E], g: [B, T, H]}
recurrence:
  over: T
  state: {S: [D, E]}
  step:
    - S = exp(g) * S + k * v
    - o = sum(q * S, D)
TILING
outputs: {o: [B, T, H, E]}
"""
CELL = """
mixer: cell
inputs: {x: [B, T, D], R: [D, P]}
recurrence:
  over: T
  state: {h: [D]}
  step:
    - h = tanh(x + sum(R * h[D=p], P))
    - o = h
outputs: {o: [B, T, D]}
"""


def plan(text: str, tiling: str = "", size: int = 64) -> Plan:
    text = text.replace("TILING", tiling)
    return lower(load_text(text), dict.fromkeys("DEP", size), "bfloat16")


def names(plan: Plan) -> dict[str, tuple[int, ...]]:
    return {knob.name: knob.choices for knob in knobs(plan)}


def test_a_chunk_kernel_has_its_rows_and_its_part_of_the_state() -> None:
    assert names(plan(MATRIX)) == {
        "block_channels": (16, 32, 64, 128),
        "chunk": (16, 32, 64, 128),
        "num_warps": (1, 2, 4, 8, 16),
        "num_stages": (1, 2, 3, 4),
    }


def test_the_spec_cuts_them() -> None:
    assert names(plan(MATRIX, "tiling: {chunk: [32, 64], warps: [4, 8]}"))["chunk"] == (32, 64)


def test_rows_and_columns_of_a_chunk_are_bound_together() -> None:
    (kernel,) = bind_configuration(plan(MATRIX), {"chunk": 64, "num_warps": 4}).kernels
    blocks = {tile.dim: tile.block for tile in kernel.program.tiles}
    assert blocks["T"] == blocks["T_2"] == 64
    assert dict(kernel.program.launch)["num_warps"] == 4


def test_a_cell_is_held_whole_for_rows_of_the_batch() -> None:
    assert set(names(plan(CELL))) == {"block_channels", "num_warps", "num_stages"}
    (kernel,) = bind_configuration(plan(CELL), {"block_channels": 32}).kernels
    blocks = {tile.dim: tile.block for tile in kernel.program.tiles}
    assert (blocks["B"], blocks["D"], blocks["P"]) == (32, 64, 64)


@pytest.mark.parametrize("text", [MATRIX, CELL])
@pytest.mark.parametrize("size", [64, 128])
def test_defaults_are_not_refused(text: str, size: int) -> None:
    assert refusal(plan(text, size=size), parse_target("cuda:120")) is None


def test_warps_share_what_a_cell_keeps() -> None:
    """Weights of a product with rows of the batch stand in shared memory while they fit; larger
    ones stay in registers, one row of the batch at a time, and take all warps."""
    for size, rows, warps in ((64, 16, 4), (128, 16, 4), (256, None, 16)):
        program = plan(CELL, size=size).kernels[0].program
        assert dict(program.launch)["num_warps"] == warps
        assert {t.dim: t.block for t in program.tiles}.get("B") == rows


def test_a_sum_of_keys_beside_a_matrix_takes_no_warps() -> None:
    text = MATRIX.replace("TILING", "").replace("{S: [D, E]}", "{S: [D, E], n: [D]}")
    text = text.replace("    - o = sum(q * S, D)", "    - n = n + k\n    - o = STATES")
    normalised = text.replace("STATES", "sum(q * S, D) / (sum(q * n, D) + 1)")
    made = lower(
        load_text(normalised), {"D": 128, "E": 128}, "bf16", target=parse_target("cuda:90")
    )
    program = made.kernels[0].program
    assert dict(program.launch)["num_warps"] == 4
    assert {tile.dim: tile.block for tile in program.tiles}["E"] == 64


def test_kernels_that_share_segments_cut_their_rows_alike() -> None:
    made = lower(load_text(MATRIX.replace("TILING", "")), {"D": 64, "E": 64}, splits=4)
    bound = bind_configuration(made, {"matrix_S_found.chunk": 16, "matrix_o.chunk": 64})
    found, _, last = (kernel.program for kernel in bound.kernels)
    assert found.tile("T").block == found.tile("T_2").block == last.tile("T").block == 64
    verify_plan(bound)
    apart = replace(bound.kernels[0], program=found.with_blocks({"T": 16}))
    with pytest.raises(PromiseError, match="T_segments counts blocks of T of 16; here they are of"):
        verify_plan(replace(bound, kernels=(apart, *bound.kernels[1:])))
