"""Gradients of both sides of a pair by one look at it: the numbers of two looks, at ragged lengths,
and only where every core has heads to work on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import pytest
import torch
from torch import Tensor

from mixc.autotune.checking.sampling import sample_inputs
from mixc.autotune.checking.tolerances import error_limit, error_of
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import Derivative, differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.expression import Kind
from mixc.ir.mixer import Mixer
from mixc.ir.plan import Plan
from mixc.ir.targets import EVERY_GPU
from mixc.ir.tile import DType, Store, all_ops

SPECS = {path.stem: path for path in library()}
# A score that overflows at keys that are not there, behind a mask that lets most rows see them all.
LARGE = """
mixer: large
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E], low: [B, H, I]}
attention:
  over: J
  score: 30 * sum(q * k, D) + low
  mask: (i + j) % 3 != 0 or i < 9
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""


@cache
def derivative_of(spec: str) -> Derivative:
    mixer = load_text(LARGE, "large.yaml") if spec == "large" else load_file(SPECS[spec])
    return differentiate(mixer, tuple(i.name for i in mixer.inputs if i.kind is Kind.REAL))


def backward(spec: str) -> Mixer:
    return derivative_of(spec).backward


def given(
    spec: str, sizes: Mapping[str, int], dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Random inputs and cotangents, and what the forward pass keeps."""
    passes = derivative_of(spec)
    tensors = sample_inputs(passes.backward, sizes, dtype, seed=1)
    made = run(passes.forward, {i.name: tensors[i.name] for i in passes.forward.inputs})
    return tensors | {name: made[name].to(tensors[name].dtype) for name in passes.kept}


def sizes_of(mixer: Mixer, lengths: tuple[int, int], feature: int) -> dict[str, int]:
    known = {"B": 1, "H": 4, "G": 2, "I": lengths[0], "J": lengths[1], "T": lengths[0]}
    dims = {dim for entry in mixer.inputs for dim in entry.dims}
    return {dim: known.get(dim, feature) for dim in dims | {"T"}}


def in_one(plan: Plan) -> list[str]:
    """The kernels that add to what is in memory."""
    programs = [k.program for k in plan.kernels]
    adds = [p for p in programs if any(isinstance(o, Store) and o.add for o in all_ops(p.body))]
    return [program.name for program in adds]


def check(
    spec: str, lengths: tuple[int, int], feature: int, dtype: torch.dtype = torch.float32
) -> None:
    mixer = backward(spec)
    sizes = sizes_of(mixer, lengths, feature)
    inputs = given(spec, sizes, dtype)
    runner = CpuRunner(mixer, lower, {"one_sweep": 1})
    assert in_one(runner._plan(mixer, sizes, dtype)), spec
    _compare(mixer, inputs, runner(inputs), dtype)


def _compare(
    mixer: Mixer,
    inputs: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
) -> None:
    wanted, plain = run(mixer, inputs), run(mixer, inputs, dtype=dtype)
    for name, value in wanted.items():
        limit = error_limit(dtype, error_of(plain[name], value))
        assert error_of(found[name], value) <= limit, name


@pytest.mark.parametrize(
    ("spec", "lengths", "feature"),
    [("causal", (131, 131), 128), ("alibi_window", (131, 131), 40), ("large", (70, 131), 64)],
)
def test_gradients_are_those_of_the_reference(
    spec: str, lengths: tuple[int, int], feature: int
) -> None:
    check(spec, lengths, feature)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_16_bits_grow_in_float32(dtype: torch.dtype) -> None:
    check("causal", (131, 131), 64, dtype)
    mixer = backward("causal")
    plan = CpuRunner(mixer, lower)._plan(mixer, sizes_of(mixer, (131, 131), 64), dtype)
    kinds = {buffer.name: buffer.dtype for buffer in plan.buffers}
    (rounded,) = [k for k in plan.kernels if k.computes == ("d_q",)]
    assert kinds["d_q"].is_narrow
    assert [kinds[name] for name in rounded.reads] == [DType.FLOAT32]


def test_numbers_of_a_row_are_made_once() -> None:
    mixer = backward("causal")
    plan = CpuRunner(mixer, lower)._plan(mixer, sizes_of(mixer, (131, 131), 64), torch.float32)
    (sweep,) = in_one(plan)
    (kernel,) = [k for k in plan.kernels if k.program.name == sweep]
    assert "o" not in kernel.reads  # only the sum of d_o * o has it


def test_every_access_is_in_bounds_and_of_what_was_written() -> None:
    mixer = backward("alibi_window")
    sizes = sizes_of(mixer, (75, 75), 16)
    inputs = given("alibi_window", sizes)
    plan = CpuRunner(mixer, lower, {"one_sweep": 1})._plan(mixer, sizes, torch.float32)
    assert in_one(plan)
    _compare(mixer, inputs, run_plan(plan, inputs, sizes))


def test_few_heads_take_two_sweeps() -> None:
    mixer = backward("causal")
    runner = CpuRunner(mixer, lower)
    sizes = sizes_of(mixer, (64, 64), 16)
    plans = {cores: runner._plan(mixer, sizes, torch.float32, 1, cores) for cores in (2, 3, 4, 8)}
    assert [cores for cores, plan in plans.items() if in_one(plan)] == [2, 4]


def test_gpus_take_two_sweeps() -> None:
    plan = lower(backward("causal"), {}, "float32", target=EVERY_GPU, one_sweep=True)
    assert not in_one(plan)
