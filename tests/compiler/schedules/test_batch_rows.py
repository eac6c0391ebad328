"""Cells whose step multiplies a state by weights: products with blocks of the batch as rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.pipeline import lower
from mixc.ir.mixer import Mixer
from mixc.ir.targets import EVERY_GPU
from mixc.ir.tile import Dot, Program, all_ops

CELLS = ("lstm", "gru", "elman", "slstm")
SIZES = {"B": 3, "H": 2, "T": 4, "K": 4, "D": 5, "P": 5}
SHARED = """
mixer: shared
inputs: {x: [B, T, H, D], R: [D, P], S0: [B, H, D]}
recurrence:
  over: T
  state: {h: [D]}
  initial: {h: S0}
  direction: backward
  step:
    - h = tanh(x + sum(R * h[D=p], P))
    - o = h
outputs: {o: [B, T, H, D], h: [B, H, D]}
"""
MATRIX = SHARED.replace("S0: [B, H, D]}", "S0: [B, H, D, E]}").replace("h: [D]", "h: [D, E]")
MATRIX = MATRIX.replace("o: [B, T, H, D], h: [B, H, D]", "o: [B, T, H, D, E], h: [B, H, D, E]")


def sizes_of(mixer: Mixer, **others: int) -> dict[str, int]:
    gates = {"lstm": 4, "slstm": 4, "gru": 3}.get(mixer.name, 1)
    return {**SIZES, "K": gates, **others}


def program_of(mixer: Mixer, size: int = 5, **limits: int) -> Program:
    plan = lower(mixer, sizes_of(mixer, D=size, P=size, E=size), "float32", **limits)
    return plan.kernels[-1].program


def rows(program: Program) -> list[str]:
    return [axis.dim for axis in program.grid if axis.tiled]


def products(program: Program) -> int:
    return sum(isinstance(op, Dot) for op in all_ops(program.body))


@pytest.mark.parametrize(("name", "count"), list(zip(CELLS, (4, 3, 1, 4), strict=True)))
def test_batch_is_the_rows_of_products(name: str, count: int) -> None:
    program = program_of(load_file(find_spec(name)))
    assert (rows(program), products(program)) == (["B"], count)


def test_any_axis_that_weights_lack_may_be_the_rows() -> None:
    assert rows(program_of(load_text(SHARED))) == ["H"]


def test_states_with_rows_of_their_own_keep_them() -> None:
    assert "B" not in rows(program_of(load_text(MATRIX)))


def test_weights_that_shared_memory_can_not_hold_are_no_products() -> None:
    lstm = load_file(find_spec("lstm"))
    assert rows(program_of(lstm, 128)) == []
    assert rows(program_of(lstm, 128, target=replace(EVERY_GPU, weight_bytes=1 << 20))) == ["B"]


@pytest.mark.parametrize("batch", [1, 3, 16, 17])
@pytest.mark.parametrize("text", ["lstm", "gru", SHARED])
def test_ragged_batches(text: str, batch: int) -> None:
    mixer = load_text(text) if ":" in text else load_file(find_spec(text))
    sizes = sizes_of(mixer, B=batch, H=batch if ":" in text else 2)
    tensors = sample_inputs(mixer, sizes, torch.float64)
    made = run_plan(lower(mixer, sizes, "float32"), tensors, sizes)
    for name, value in run(mixer, tensors).items():
        torch.testing.assert_close(made[name], value, rtol=1e-10, atol=1e-10)
