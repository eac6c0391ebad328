"""Rows that choose stretches of keys: found in the mask, and attended to by lists of them."""

from __future__ import annotations

import pytest
import torch

from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.mixer import Mixer
from mixc.ir.targets import AVX512
from mixc.ir.task import ListedRowsTask

SPEC = """
mixer: chosen
inputs:
  q: [H, I, D]
  k: [G, J, D]
  v: [G, J, E]
  sink: [H]
  seen: {{dims: [H, I, N], dtype: bool}}
dims: {{I: T, J: T, N: (J + 15) // 16}}
heads: {{G: H}}
attention:
  over: J
  score: sum(q * k, D)
  mask: {mask}
  normalize: {{softmax: {{sink: sink}}}}
  output: {{o: v}}
  lse: z
outputs: {{o: [H, I, E], z: [H, I]}}
"""
CAUSAL = "j <= i and at(seen, N=j // 16)"


def _mixer(mask: str) -> Mixer:
    return load_text(SPEC.format(mask=mask), "chosen.yaml")


def _tensors(rows: int) -> dict[str, torch.Tensor]:
    """Of which every third row chooses nothing."""
    torch.manual_seed(0)
    seen = torch.rand(2, rows, -(-rows // 16)) < 0.2
    seen[:, ::3] = False
    made = {name: torch.randn(1, rows, size) for name, size in (("k", 8), ("v", 20))}
    return {"q": torch.randn(2, rows, 8), **made, "sink": torch.randn(2), "seen": seen}


@pytest.mark.parametrize(
    "mask", [CAUSAL, "at(seen, N=j // 16)", "i - j < 40 and at(seen, N=j // 16) and j != i"]
)
def test_kernels_match_the_reference(mask: str) -> None:
    """Of two shares of rows, by stretches that no block of keys divides."""
    mixer, tensors = _mixer(mask), _tensors(1100)
    made = CpuRunner(mixer, lower, {"block_keys": 64}, flags=("-O0",))(tensors)
    expected = run(mixer, {n: t.double() if n != "seen" else t for n, t in tensors.items()})
    for name in ("o", "z"):
        torch.testing.assert_close(made[name].double(), expected[name], atol=1e-5, rtol=1e-5)


def test_a_tile_program_is_right_in_double_precision() -> None:
    mixer, tensors = _mixer(CAUSAL), _tensors(45)
    plan = lower(mixer, {"D": 8, "E": 20}, "float32", target=AVX512)
    sizes = {"H": 2, "G": 1, "I": 45, "J": 45, "T": 45, "N": 3, "D": 8, "E": 20}
    wide = {n: t.double() if n != "seen" else t for n, t in tensors.items()}
    made, expected = run_plan(plan, wide, sizes), run(mixer, wide)
    for name in ("o", "z"):
        torch.testing.assert_close(made[name], expected[name])


@pytest.mark.parametrize(
    ("mask", "length"),
    [
        (CAUSAL, 16),
        ("j <= i and at(seen, N=j // 16) and at(seen, N=j // 32)", None),  # of unlike lengths
        ("j <= i and at(seen, N=j // 4)", None),  # too short for a product of matrices
        ("j <= i and at(seen, N=(j + 1) // 16)", None),  # no truth of a stretch
        ("j <= i or at(seen, N=j // 16)", None),  # rows see more than what they choose
    ],
)
def test_lists_are_for_stretches_that_a_mask_chooses(mask: str, length: int | None) -> None:
    tasks = lower(_mixer(mask), {"D": 8, "E": 20}, "float32", target=AVX512).tasks
    lists = [task.lists for task in tasks if isinstance(task, ListedRowsTask)]
    assert [one.length for one in lists if one] == ([] if length is None else [length])


def test_a_gpu_visits_listed_blocks() -> None:
    schedules = [k.schedule for k in lower(_mixer(CAUSAL), {"D": 8, "E": 20}).kernels]
    assert schedules == ["block table", "flash"]


def test_lists_are_made_where_they_are_read() -> None:
    """No list outlives its stretch, and what a stretch's rows see whole is not asked of each."""
    plan = lower(_mixer(CAUSAL), {"D": 8, "E": 20}, "float32", target=AVX512)
    (listed,) = (task for task in plan.tasks if isinstance(task, ListedRowsTask))
    assert listed.lists is not None
    assert plan.buffer(listed.lists.places).dims == ("H", "I")
    source = CpuRunner(_mixer(CAUSAL), lower, target=AVX512).source(
        {"D": 8, "E": 20}, torch.float32
    )
    assert "mx::compact<" in source
    products = [line for line in source.splitlines() if "mx::dot<" in line and "{" not in line]
    assert products
    assert all("mx::clip(int64_t(count)" in line for line in products)
    assert source.count("mx::masked_dot<") < source.count("mx::dot<")
