"""Selections whose kernels make their scores, block of rows by block of rows."""

from __future__ import annotations

import pytest
import torch

from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.plan_memory import bytes_beside
from mixc.ir.selection_tasks import ChoiceTask
from mixc.ir.targets import AVX512, EVERY_GPU
from mixc.runtime.backends import kernel_runner

from .test_small_specs import _own_cache

__all__ = ["_own_cache"]

SPEC = """
mixer: indexed
inputs:
  q: [B, I, X, C]
  k: [B, J, C]
  w: [B, I, X]
  f: {{dims: [J], dtype: bool}}
  n: {{dims: [I], dtype: int32}}
dims: {{I: T, J: T}}
select:
  over: J
  score: sum(w * relu(sum(q * k, C)), X)
  among: {among}
  keep: {{top: {top}}}
  always: f
outputs: {{selected: {dims}}}
"""


def _mixer(among: str = "j <= i", top: str = "n", dims: str = "[B, I, J]"):
    return load_text(SPEC.format(among=among, top=top, dims=dims), "indexed.yaml")


def _inputs(rows: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Small whole numbers, whose products and sums no type rounds: equal scores abound."""
    torch.manual_seed(rows)

    def some(*shape: int) -> torch.Tensor:
        return torch.randint(-2, 3, shape).to(dtype)

    n = torch.randint(-1, rows + 2, (rows,)).int()
    q, k = some(2, rows, 3, 8), some(2, rows, 8)
    k[1, rows // 2 : rows // 2 + 1] = torch.nan
    f = torch.rand(rows) < 0.05
    return {"q": q, "k": k, "w": some(2, rows, 3), "f": f, "n": n}


def _check(runner, mixer, rows: int, dtype: torch.dtype = torch.float32) -> None:
    given = _inputs(rows, dtype)
    given = {i.name: given[i.name] for i in mixer.inputs}
    exact = {n: t.double() if t.is_floating_point() else t for n, t in given.items()}
    assert torch.equal(runner(given)["selected"], run(mixer, exact)["selected"])


@pytest.mark.parametrize(
    "among", ["j <= i", "i - j < 20 and j <= i", "j <= i or j % 3 == 0", "true"]
)
@pytest.mark.parametrize("top", ["n", "5", "40"])
def test_on_a_cpu(among: str, top: str) -> None:
    mixer = _mixer(among, top)
    runner = CpuRunner(mixer, lower, flags=("-O1",))
    for rows in (0, 1, 17, 100, 1100):  # programs of the last take two blocks of rows
        _check(runner, mixer, rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precisions_on_a_cpu(dtype: torch.dtype) -> None:
    mixer = _mixer(dims="[J, B, I]")
    _check(CpuRunner(mixer, lower, flags=("-O1",)), mixer, 100, dtype)


@pytest.mark.parametrize(("among", "top"), [("j <= i", "n"), ("i - j < 20", "3")])
def test_by_the_interpreter(among: str, top: str) -> None:
    mixer = _mixer(among, top)
    for rows in (1, 70):
        _check(lambda x: kernel_runner(mixer, chosen="interpreter")(x, {}), mixer, rows)


@pytest.mark.parametrize(("target", "programs"), [(AVX512, 64), (EVERY_GPU, 256)])
def test_scores_in_memory_are_of_the_blocks_at_hand(target: object, programs: int) -> None:
    plan = lower(_mixer(top="2048"), {"C": 64, "X": 8}, "bfloat16", target=target)
    sizes = {"B": 1, "I": 65536, "J": 65536, "T": 65536}
    assert bytes_beside(plan, (), sizes) == programs * 16 * 4 * 65536
    few = bytes_beside(plan, (), {**sizes, "I": 48, "T": 48, "J": 48})
    assert few == 3 * 16 * 4 * 48  # no more programs than blocks


def test_numbers_that_no_pass_would_round_are_read_where_they_are() -> None:
    """They have the same bits each time, and take no memory of a program's own."""
    read = load_text(
        "mixer: read\ninputs: {x: [I, N]}\n"
        "select: {over: N, score: 'where(n == i, 1, -abs(x))', keep: {top: 40}}\n"
        "outputs: {selected: [I, N]}\n"
    )
    for mixer, kept in ((read, False), (_mixer(), True)):
        (task,) = lower(mixer, {"C": 16, "X": 4}, "float32", target=AVX512).tasks
        assert isinstance(task, ChoiceTask)
        assert (task.own is not None) == kept
