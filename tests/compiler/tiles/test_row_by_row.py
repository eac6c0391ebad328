"""Sums of products of three axes: one row of the tile at a time, which the reference confirms."""

from __future__ import annotations

from collections.abc import Sequence

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


LARGEST = """
mixer: largest
inputs: {q: [B, T, D], k: [B, T, Q, D], x: [B, T, P], c: [B, T, P, E]}
map: {o: "sum(exp(x - max(sum(q * k, D), Q)) * c, P)"}
outputs: {o: [B, T, E]}
"""


def test_what_lacks_the_axis_of_a_loop_is_made_before_it() -> None:
    mixer = load_text(LARGEST)
    plan = lower(mixer, {"D": 8, "E": 8, "P": 8, "Q": 8}, "float32")
    made = next(k.program for k in plan.kernels if "o" in k.computes)
    assert deepest(made.body) == 2  # keys and their channels; not in the loop over what is summed
    torch.manual_seed(0)
    shapes = {"q": (2, 5, 8), "k": (2, 5, 8, 8), "x": (2, 5, 8), "c": (2, 5, 8, 8)}
    assert_equal(mixer, {n: torch.randn(*s, dtype=torch.float64) for n, s in shapes.items()})


def deepest(ops: Sequence[Op]) -> int:
    """How many loops of some ops stand in each other."""
    return max((1 + deepest(op.body) for op in ops if isinstance(op, For)), default=0)
