"""The few largest of a row by one pass: which are chosen, against the definition."""

from __future__ import annotations

import pytest
import torch

from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.targets import AVX512, EVERY_GPU
from mixc.ir.tile import For, all_ops

SPEC = """
mixer: chosen
inputs: {{x: [H, I, N]}}
select: {{over: N, score: x, among: {among}, keep: {{top: {top}}}}}
outputs: {{selected: [H, I, N]}}
"""


def _rows(rows: int, columns: int) -> torch.Tensor:
    """Of few different numbers, infinite ones and such as are none among them."""
    torch.manual_seed(0)
    x = torch.randn(2, rows, columns).mul(2).round()
    x[torch.rand(x.shape) < 0.2] = -torch.inf
    x[torch.rand(x.shape) < 0.1] = torch.inf
    x[torch.rand(x.shape) < 0.1] = torch.nan
    return x


@pytest.mark.parametrize("top", [1, 3, 16, 17])
@pytest.mark.parametrize("among", ["n <= i // 2", "n > i or n == 3", "n < N"])
def test_ties_and_what_is_no_number(top: int, among: str) -> None:
    """By one pass for up to 16, and by another way beyond; rows with fewer candidates, too."""
    mixer = load_text(SPEC.format(top=top, among=among), "chosen.yaml")
    x = _rows(70, 40)
    for given in (x, x.transpose(1, 2).contiguous().transpose(1, 2), x[:, :1], x[..., :5]):
        made = CpuRunner(mixer, lower, flags=("-O1",))({"x": given})["selected"]
        assert torch.equal(made, run(mixer, {"x": given.double()})["selected"])


def test_up_to_16_on_a_cpu_go_by_one_pass() -> None:
    """And another that writes the choice; a GPU's threads have no rows side by side."""

    def walks(top: int, target: object) -> int:
        mixer = load_text(SPEC.format(top=top, among="n < N"), "chosen.yaml")
        plan = lower(mixer, {}, "float32", target=target)
        return sum(isinstance(op, For) for k in plan.kernels for op in all_ops(k.program.body))

    assert [walks(top, AVX512) for top in (1, 16, 17)] == [2, 2, 3]
    assert walks(1, EVERY_GPU) == 3


def test_a_pass_ends_where_candidates_end() -> None:
    mixer = load_text(SPEC.format(top=2, among="n <= i // 2"), "chosen.yaml")
    plan = lower(mixer, {}, "float32", target=AVX512)
    walks = [op for k in plan.kernels for op in all_ops(k.program.body) if isinstance(op, For)]
    assert [walk.stop.name for walk in walks] == ["n_high", "constant"]
