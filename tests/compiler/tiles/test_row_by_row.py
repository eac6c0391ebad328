"""Sums of products of three axes: one row of the tile at a time, which the reference confirms."""

from __future__ import annotations

import torch

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.targets import AVX2
from mixc.ir.tile import For, Op, all_ops

from ..plans import assert_equal

PAIRS = """
mixer: pairs
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E], gate: [B, I, J]}
attention:
  over: J
  score: sum(q * k, D)
  mask: j <= i
  normalize: softmax
  output: {o: v, p: gate * tanh(q + k)}
outputs: {o: [B, I, E], p: [B, I, D]}
"""


def ops() -> list[Op]:
    plan = lower(load_text(PAIRS), {"D": 64, "E": 64}, "float32")
    return [op for kernel in plan.kernels for op in all_ops(kernel.program.body)]


def test_no_tile_has_three_axes() -> None:
    assert all(len(op.out.axes) <= 2 for op in ops() if hasattr(op, "out"))
    assert any(isinstance(op, For) and op.variable.name.startswith("j_row") for op in ops())


def test_a_cpu_holds_no_tile_in_registers() -> None:
    plan = lower(load_text(PAIRS), {"D": 64, "E": 64}, "float32", target=AVX2)
    loops = [op for k in plan.kernels for op in all_ops(k.program.body) if isinstance(op, For)]
    assert not any(loop.variable.name.startswith("j_row") for loop in loops)


def test_rows_are_those_of_the_reference() -> None:
    mixer = load_text(PAIRS)
    generator = torch.Generator().manual_seed(1)
    shapes = {"q": (2, 21, 6), "k": (2, 37, 6), "v": (2, 37, 3), "gate": (2, 21, 37)}
    tensors = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    assert_equal(mixer, tensors)
