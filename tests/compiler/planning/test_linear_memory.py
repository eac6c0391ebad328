"""Memory of forward and backward passes grows as the length does, not as its square."""

from __future__ import annotations

from functools import cache
from math import prod
from pathlib import Path

import pytest

from mixc.autotune.checking.proportions import Proportions, default_sizes, resized
from mixc.compiler.language.find import find_spec, library
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.planning.mixer import plan_mixer
from mixc.ir.errors import UnsupportedError
from mixc.ir.host import evaluate_host
from mixc.ir.mixer import Mixer
from mixc.ir.optional import free_dims
from mixc.ir.plan import Buffer, Plan
from mixc.ir.roles import feature_dims
from mixc.ir.tile import DType

SHORT, LONG = 4096, 16384
# Specs that are about a matrix of pairs which no sweep over the keys makes again.
SQUARE = {
    "landmark": "a softmax by blocks of keys inside another: numbers for each row and block",
    "adem": "which keys a row has chosen, of all of them",
    "path": "what each row has done to the keys before it, a number for each pair",
    "seqboat": "a number for each pair of rows between kernels, seen when the spec was new",
    "longheads": "how many chunks a row has chosen after each",
    "recycled": "what each row that attends to all gives to every key, from which keys are kept",
    "tome": "a similarity for each pair of tokens",
    "hip": "what each block of queries adds to the gradient of each key",
    "neighbor": "how likely each position comes after each, which the map of a character goes by",
    "sinkhorn": "how alike each pair of blocks is, and how much of each is in the mix of each",
    "structformer": "how far each token's range reaches, and its likely heads",
    "xlnet": "products with every distance, read at those of the pairs",
}


@cache
def lengths_of(path: Path) -> tuple[Mixer, dict[int, dict[str, int]]]:
    """A spec, and the sizes of all its dims at both lengths, everything but lengths small."""
    mixer = load_file(path)
    found = {}
    channels = {d for i in mixer.inputs if i.held for d in i.dims if mixer.sequence(d) == d}
    others = {None, *channels}  # channels have a name as inputs and another as outputs
    several = max(len({mixer.sequence(d) for d in i.dims} - others) for i in mixer.inputs)
    for length in (SHORT, LONG):
        side = round(length ** (1 / max(several, 1)))  # of a picture with so many pixels
        small = Proportions(lengths=(side,), features=(64,), ratio=1, groups=1, batch=(2, 1))
        named = {dim: length for dim in ("T", "S", "I", "J") if dim in free_dims(mixer)}
        wide = dict.fromkeys(channels & free_dims(mixer) - named.keys(), 64)
        found[length] = resized(mixer, default_sizes(mixer, small), {**wide, **named}, {})
    return mixer, found


def most(plans: list[tuple[Plan, dict[str, int]]], kept: tuple[str, ...]) -> int:
    """The most that two passes have in memory beside inputs and gradients: what the first keeps
    for the second, and what either makes between its kernels, which is gone when it ends."""
    own = [b for b in plans[0][0].buffers if b.name in kept and b.role == "output"]
    between = [
        held(plan, [b for b in plan.buffers if b.role == "temporary"], sizes)
        for plan, sizes in plans
    ]
    return held(plans[0][0], own, plans[0][1]) + max(between)


def held(plan: Plan, buffers: list[Buffer], sizes: dict[str, int]) -> int:
    known = {**sizes, **dict(plan.sizes)}
    for dim, size in plan.lengths:
        known[dim] = int(evaluate_host(size, known, dict(plan.params)))
    for dim, of in plan.block_counts:
        known[dim] = -(-known[of] // 64)
    known |= dict.fromkeys((block for block, _ in plan.block_lengths), 16)
    return sum(b.dtype.size_bytes * prod(known[dim] for dim in b.dims) for b in buffers)


@pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)
def test_four_times_the_rows_take_four_times_the_memory(path: Path) -> None:
    mixer, sizes = lengths_of(path)
    try:
        derivative = differentiate(mixer)
        plans = []
        for one in (derivative.forward, derivative.backward):
            fixed = {d: sizes[SHORT][d] for d in feature_dims(one) if d in sizes[SHORT]}
            plans.append(plan_mixer(one, fixed, DType.FLOAT32))
    except UnsupportedError:
        pytest.skip("no derivative by kernels")
    total = {
        length: (1 << 12)
        + most([(p, resized(p.mixer, at, {}, {})) for p in plans], derivative.kept)
        for length, at in sizes.items()
    }
    growth = total[LONG] / total[SHORT]
    assert (growth >= 4.5) == (path.stem in SQUARE), growth


def test_no_pair_of_positions_is_stored_where_blocks_of_keys_are_read_by_their_last() -> None:
    mixer, _ = lengths_of(find_spec("landmark"))
    backward = differentiate(mixer).backward
    plan = plan_mixer(backward, {"D": 64, "E": 64}, DType.FLOAT32)
    assert not [b.name for b in plan.buffers if {"I", "J"} <= {*b.dims}]
