"""Short axes in tiles as short where no product takes them, on GPUs."""

from __future__ import annotations

import pytest

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.compiler.schedules.estimates import across_loops
from mixc.ir.targets import AVX2, AnyTarget, parse_target
from mixc.ir.tile import Dot, Program, all_ops

HOPPER = parse_target("cuda:90")


def program_of(
    inputs: str, value: str, axes: str, target: AnyTarget = HOPPER, k: int = 3
) -> Program:
    text = f"mixer: m\ninputs: {{{inputs}}}\nstages:\n  - map: {{y: '{value}'}}\n"
    sizes = {"D": 64, "E": 64, "K": k}
    plan = lower(load_text(text + f"outputs: {{y: [{axes}]}}"), sizes, target=target)
    return plan.kernels[-1].program


@pytest.mark.parametrize(("size", "block"), [(1, 1), (3, 4), (4, 4), (17, 32)])
def test_an_axis_that_is_only_gone_through(size: int, block: int) -> None:
    program = program_of("x: [T, D, K], g: [K]", "x * g", "T, D, K", k=size)
    assert program.tile("K").block == block


def test_products_and_cpus_keep_theirs() -> None:
    program = program_of("x: [T, D, K], w: [E, K]", "sum(softmax(x, K) * w, K)", "T, D, E")
    dots = [op for op in all_ops(program.body) if isinstance(op, Dot)]
    assert dots
    for dot in dots:
        assert all(program.tile(axis).block >= 16 for axis in dot.out.axes | dot.a.axes)
    assert program_of("x: [T, D, K], g: [K]", "x * g", "T, D, K", AVX2).tile("K").block == 16


def test_what_stands_by_while_a_loop_goes_on_is_held() -> None:
    """a is read by both sums and after them, and the first sum waits for the second: with what
    a loop carries that makes three tiles of 64 x 64 in 128 threads."""
    once = program_of("a: [T, D], b: [L]", "sum(tanh(a * b), L)", "T, D")
    twice = program_of("a: [T, D], b: [L]", "a * sum(tanh(a * b), L) / sum(sin(a * b), L)", "T, D")
    assert across_loops(twice) > across_loops(once) > 0
