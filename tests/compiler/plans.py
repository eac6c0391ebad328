"""Lowering small specs, and their plans executed with blocks so small that several occur."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.pipeline import lower
from mixc.ir.binding import Number, bind_sizes
from mixc.ir.mixer import Mixer
from mixc.ir.plan import Plan
from mixc.ir.roles import feature_dims
from mixc.ir.tile import Op, Program, Range


def with_blocks(plan: Plan, block: int) -> Plan:
    """The plan with ``block`` positions of every dim that is cut; half as many of the second."""

    def cut(program: Program) -> Program:
        order = [d for d in ("I", "T", "Q") if any(t.dim == d for t in program.tiles)]
        tiles = tuple(
            t
            if t.whole
            else replace(t, block=block if (t.like or t.dim) in order else max(1, block // 2))
            for t in program.tiles
        )
        return replace(program, tiles=tiles)

    kernels = tuple(replace(k, program=cut(k.program)) for k in plan.kernels)
    return replace(plan, kernels=kernels)


def interpret(
    mixer: Mixer,
    tensors: Mapping[str, Tensor],
    runtime: Mapping[str, Number] = {},
    block: int = 4,
    splits: int = 1,
) -> dict[str, Tensor]:
    """What the plan for float32 computes, in float64; no block of keys is visited twice."""
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    sizes = bind_sizes(mixer, shapes, runtime)
    fixed = {d: sizes[d] for d in feature_dims(mixer)}
    plan = with_blocks(lower(mixer, fixed, "float32", splits), block)
    visits: Counter[object] = Counter()

    def count(program: Program, place: Mapping[str, int], op: Op, value: Tensor) -> None:
        if isinstance(op, Range) and op.start is not None and op.start.name not in place:
            visits[program.name, tuple(place.items()), op.out, int(value[0])] += 1

    made = run_plan(plan, tensors, sizes, runtime, watch=count)
    walked = Counter(key for key in visits.elements() if _in_attention(plan, key))
    turns = {
        kernel.program.name: sizes[loop.over]
        for loop, inside in plan.stretches
        for kernel in plan.kernels[inside.start : inside.stop]
    }
    once = [n == turns.get(key[0], 1) for key, n in walked.items() if isinstance(key, tuple)]
    assert all(once), walked.most_common(3)
    return made


def _in_attention(plan: Plan, key: object) -> bool:
    assert isinstance(key, tuple)
    kernel = next(k for k in plan.kernels if k.program.name == key[0])
    return kernel.schedule in ("flash", "block table")


def assert_equal(
    mixer: Mixer,
    tensors: Mapping[str, Tensor],
    runtime: Mapping[str, Number] = {},
    block: int = 4,
    limit: float = 1e-9,
    splits: int = 1,
) -> None:
    """The plan, executed, gives what the reference does."""
    made = interpret(mixer, tensors, runtime, block, splits)
    expected = run(mixer, tensors, runtime)
    assert made.keys() == expected.keys()
    for name, wanted in expected.items():
        assert made[name].shape == wanted.shape
        same = made[name].double() == wanted.double()
        error = torch.where(same, 0.0, (made[name].double() - wanted.double()).abs())
        assert bool((error <= limit * (1 + wanted.abs().nan_to_num(posinf=0))).all()), (
            name,
            float(error.nan_to_num(nan=torch.inf).max()),
        )
