"""Gradients where rows choose stretches of keys: pairs that are seen alone, with the numbers of the
reference, in one sweep and in two."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor

from mixc.autotune.checking.tolerances import error_limit, error_of
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.load import load_text
from mixc.compiler.mixers.derivative.differentiate import Derivative, differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.plan import Plan
from mixc.ir.targets import AVX512, EVERY_GPU
from mixc.ir.task import AttentionTask, ListedKeysTask, ListedRowsTask

SPEC = """
mixer: chosen
inputs:
  q: [H, I, D]
  k: [G, J, D]
  v: [G, J, E]
  seen: {{dims: [H, {rows}, {keys}], dtype: bool}}
dims: {{I: T, J: T, N: (T + 15) // 16, M: (T + 31) // 32}}
heads: {{G: H}}
attention:
  over: J
  score: sum(q * k, D)
  mask: {mask}
  output: {{o: v}}
  lse: z
outputs: {{o: [H, I, E], z: [H, I]}}
"""
CAUSAL = "j <= i and at(seen, N=j // 16)"
MASKS = {
    CAUSAL: ("I", "N"),
    "at(seen, N=j // 16)": ("I", "N"),
    "j <= i and i - j < 40 and at(seen, N=j // 16) and j != i": ("I", "N"),
    "j <= i and at(seen, M=i // 32)": ("M", "J"),
    "at(seen, M=i // 32, N=j // 16)": ("M", "N"),
}


@cache
def _passes(mask: str) -> Derivative:
    rows, keys = MASKS[mask]
    text = SPEC.format(mask=mask, rows=rows, keys=keys)
    return differentiate(load_text(text, "chosen.yaml"), ("q", "k", "v"))


def _tensors(
    mask: str, rows: int, dtype: torch.dtype = torch.float32, hidden: slice | None = None
) -> dict[str, Tensor]:
    """Of two heads of one key head; every third row, or stretch of rows, chooses nothing, and no
    row the keys in ``hidden``, a stretch that is no number."""
    torch.manual_seed(0)
    passes = _passes(mask)
    long = {"I": rows, "N": -(-rows // 16), "M": -(-rows // 32), "J": rows}
    seen = torch.rand(2, *(long[dim] for dim in MASKS[mask])) < 0.2
    seen[:, ::3] = False
    made = {name: torch.randn(1, rows, size) for name, size in (("k", 8), ("v", 20))}
    if hidden is not None:
        seen[..., hidden.start // 16] = False
        for x in made.values():
            x[:, hidden] = float("nan")
    made = {name: x.to(dtype) for name, x in made.items()}
    tensors = {"q": torch.randn(2, rows, 8).to(dtype), **made, "seen": seen}
    results = run(passes.forward, tensors)
    kept = {i.name for i in passes.backward.inputs} & {o.name for o in passes.forward.outputs}
    tensors |= {n: results[n].to(torch.float32 if n == "z" else dtype) for n in kept}
    tensors |= {"d_o": torch.randn(2, rows, 20).to(dtype), "d_z": torch.randn(2, rows).to(dtype)}
    return {i.name: tensors[i.name] for i in passes.backward.inputs}


def _plan(mask: str, sweeps: int) -> Plan:
    return lower(
        _passes(mask).backward,
        {"D": 8, "E": 20},
        "float32",
        target=AVX512,
        one_sweep=sweeps == 1,
    )


def _compare(
    mask: str, given: dict[str, Tensor], found: dict[str, Tensor], dtype: torch.dtype
) -> None:
    mixer = _passes(mask).backward
    wanted, plain = run(mixer, given), run(mixer, given, dtype=dtype)
    for name, value in wanted.items():
        limit = error_limit(dtype, error_of(plain[name], value))
        assert error_of(found[name], value) <= limit, name


@pytest.mark.parametrize("sweeps", [1, 2])
@pytest.mark.parametrize("mask", MASKS)
def test_gradients_are_those_of_the_reference(mask: str, sweeps: int) -> None:
    """Of two shares of rows, by stretches that no block divides."""
    given = _tensors(mask, 1100)
    runner = CpuRunner(_passes(mask).backward, lower, {"one_sweep": 2 - sweeps}, flags=("-O0",))
    _compare(mask, given, runner(given), torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_16_bits_grow_in_float32(dtype: torch.dtype) -> None:
    given = _tensors(CAUSAL, 150, dtype)
    runner = CpuRunner(_passes(CAUSAL).backward, lower, flags=("-O0",))
    _compare(CAUSAL, given, runner(given), dtype)


@pytest.mark.parametrize("sweeps", [1, 2])
@pytest.mark.parametrize("mask", [CAUSAL, "j <= i and at(seen, M=i // 32)"])
def test_every_access_is_in_bounds_and_of_what_was_written(mask: str, sweeps: int) -> None:
    given = _tensors(mask, 75)
    sizes = {"H": 2, "G": 1, "I": 75, "J": 75, "T": 75, "N": 5, "M": 3, "D": 8, "E": 20}
    _compare(mask, given, run_plan(_plan(mask, sweeps), given, sizes), torch.float32)


@pytest.mark.parametrize("sweeps", [1, 2])
def test_what_nothing_has_chosen_is_not_touched(sweeps: int) -> None:
    """Keys and values that no row sees may hold anything, and get nothing."""
    hidden = slice(32, 48)
    given = _tensors(CAUSAL, 75, hidden=hidden)
    runner = CpuRunner(_passes(CAUSAL).backward, lower, {"one_sweep": 2 - sweeps}, flags=("-O0",))
    found = runner(given)
    assert all(bool(x.isfinite().all()) for x in found.values())
    assert not found["d_k"][:, hidden].any()
    assert not found["d_v"][:, hidden].any()
    _compare(CAUSAL, given, found, torch.float32)


@pytest.mark.parametrize("sweeps", [1, 2])
def test_threads_leave_every_bit_as_it_is(sweeps: int) -> None:
    given = _tensors(CAUSAL, 1100)
    threads, made = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            made.append(
                CpuRunner(_passes(CAUSAL).backward, lower, {"one_sweep": 2 - sweeps})(given)
            )
    finally:
        torch.set_num_threads(threads)
    for other in made[1:]:
        assert all(torch.equal(made[0][name], other[name]) for name in other)


def _kinds(plan: Plan) -> list[str]:
    return [type(t).__name__ for t in plan.tasks if isinstance(t, AttentionTask)]


@pytest.mark.parametrize(
    ("mask", "sweeps", "kinds"),
    [
        (CAUSAL, 1, [ListedKeysTask]),
        (CAUSAL, 2, [ListedKeysTask, ListedRowsTask]),
        ("j <= i and at(seen, M=i // 32)", 1, [ListedKeysTask]),
        ("j <= i and at(seen, M=i // 32)", 2, [ListedRowsTask, ListedKeysTask]),
        ("at(seen, M=i // 32, N=j // 16)", 1, [ListedKeysTask]),
        ("at(seen, M=i // 32, N=j // 16)", 2, [ListedKeysTask, ListedKeysTask]),
    ],
)
def test_stretches_of_either_side_have_lists(mask: str, sweeps: int, kinds: list[type]) -> None:
    assert _kinds(_plan(mask, sweeps)) == [kind.__name__ for kind in kinds]


def test_memory_does_not_grow_with_pairs() -> None:
    plan = _plan(CAUSAL, 1)
    long = {"I", "J"}
    pairs = [b.name for b in plan.buffers if len(long & {*b.dims}) > 1 and b.role == "temporary"]
    assert not pairs
    (task,) = (t for t in plan.tasks if isinstance(t, ListedKeysTask))
    assert task.lists is not None
    assert plan.buffer(task.lists.places).dims == ("H", "I")


def test_gpus_visit_listed_blocks_both_ways() -> None:
    plan = lower(_passes(CAUSAL).backward, {"D": 8, "E": 20}, "float32", target=EVERY_GPU)
    tables = [t.table for t in plan.tasks if isinstance(t, AttentionTask)]
    assert [table.over for table in tables if table] == ["I", "J"]
