"""Many largest of a row by the bits of the least: which are chosen, against the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.compiler.schedules.largest_by_bits import turns_are_cheaper
from mixc.ir.node import AS_FLOAT
from mixc.ir.targets import AVX512, EVERY_GPU
from mixc.ir.tile import Elementwise, all_ops
from mixc.runtime.backends import kernel_runner

SPEC = """
mixer: chosen
inputs: {{x: [I, N], a: {{dims: [I, N], dtype: bool}}, c: {{dims: [I], dtype: int32}}}}
select: {{over: N, score: x, {among}keep: {{top: {top}}}}}
outputs: {{selected: [I, N]}}
"""
# Both zeros, both infinities, what is no number, the largest and the smallest of either sign.
HARD = (0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0, -1.0)


def _rows(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of all sizes, close ones, equal ones and hard ones among them."""
    x = torch.randn(rows, columns) * 10.0 ** torch.randint(-30, 30, (rows, 1))
    near = 1 + torch.randint(0, 9, x.shape) * 2.0**-23
    x = torch.where(torch.rand(x.shape) < 0.3, near, x)
    hard = torch.tensor(HARD)[torch.randint(0, len(HARD), x.shape)]
    return torch.where(torch.rand(x.shape) < 0.3, hard, x).to(dtype)


def _inputs(rows: int, columns: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    a = torch.rand(rows, columns) < 0.8
    a[::7] = False  # nothing to choose from
    c = torch.randint(-1, columns + 3, (rows,)).int()
    return {"x": _rows(rows, columns, dtype), "a": a, "c": c}


def _spec(top: str, among: str) -> object:
    return load_text(SPEC.format(top=top, among=f"among: {among}, " if among else ""), "c.yaml")


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    columns=st.sampled_from([0, 1, 17, 130, 1000]),
    rows=st.sampled_from([1, 35]),
    top=st.sampled_from(["c", "40", "N // 2"]),
    among=st.sampled_from(["", "a", "a and n <= 3 * i"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 99),
)
def test_numbers_of_every_kind_on_a_cpu(columns, rows, top, among, dtype, seed):
    torch.manual_seed(seed)
    mixer, tensors = _spec(top, among), _inputs(rows, columns, dtype)
    tensors = {i.name: tensors[i.name] for i in mixer.inputs}
    made = CpuRunner(mixer, lower, flags=("-O1",))(tensors)["selected"]
    exact = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    assert torch.equal(made, run(mixer, exact)["selected"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("among", ["", "a"])
def test_numbers_of_every_kind_by_the_interpreter(among, dtype):
    torch.manual_seed(3)
    mixer, tensors = _spec("c", among), _inputs(35, 130, dtype)
    tensors = {i.name: tensors[i.name] for i in mixer.inputs}
    made = kernel_runner(mixer, chosen="interpreter")(tensors, {})["selected"]
    exact = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    assert torch.equal(made, run(mixer, exact)["selected"])


@pytest.mark.parametrize("target", [AVX512, EVERY_GPU])
def test_few_are_found_in_turn(target):
    """By what each costs; how many are kept in a row is known or not."""

    def by_bits(top: str) -> bool:
        plan = lower(_spec(top, ""), {}, "float32", target=target)
        ops = [op for kernel in plan.kernels for op in all_ops(kernel.program.body)]
        return any(isinstance(op, Elementwise) and op.fn == AS_FLOAT for op in ops)

    assert [by_bits(top) for top in ("1", "8", "64", "c", "N // 2")] == [False, False] + [True] * 3


def test_the_longer_way_is_by_more_numbers_kept():
    """Passes by bits are as many whatever is kept; and no target keeps all numbers in turn."""
    for target in (AVX512, EVERY_GPU):
        costs = [turns_are_cheaper(kept, target) for kept in range(200)]
        assert costs == sorted(costs, reverse=True)
        assert costs[1]
        assert not costs[-1]
        assert not turns_are_cheaper(None, target)
