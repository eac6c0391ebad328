"""Memory of forward and backward passes grows as the length does, not as its square."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import prod
from pathlib import Path

import pytest

from mixc.autotune.checking.proportions import Proportions, default_sizes, resized
from mixc.compiler.language.find import library
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
    "fnet": "the transform's table of angles, which every channel reads",
    "moba": "tables of blocks, a number for each two, beside little else",
    "landmark": "a softmax by blocks of keys inside another: weights by two totals",
    "nsa": "the weights of blocks of keys, from which blocks are chosen",
    "xlnet": "products with every distance, read at those of the pairs",
}


@cache
def lengths_of(path: Path) -> tuple[Mixer, dict[int, dict[str, int]]]:
    """A spec, and the sizes of all its dims at both lengths, everything but lengths small."""
    mixer = load_file(path)
    found = {}
    for length in (SHORT, LONG):
        small = Proportions(lengths=(length,), features=(64,), ratio=1, groups=1, batch=(2, 1))
        named = {dim: length for dim in ("T", "S", "I", "J") if dim in free_dims(mixer)}
        found[length] = resized(mixer, default_sizes(mixer, small), named, {})
    return mixer, found


def beside_results(plan: Plan, kept: tuple[str, ...]) -> Iterator[Buffer]:
    """What a plan has in memory that no caller asked for."""
    own = {output.name for output in plan.mixer.outputs}
    for buffer in plan.buffers:
        if buffer.role == "temporary" or (buffer.name in kept and buffer.name in own):
            yield buffer


def held(plan: Plan, buffers: list[Buffer], sizes: dict[str, int]) -> int:
    known = {**sizes, **dict(plan.sizes)}
    for dim, size in plan.lengths:
        known[dim] = int(evaluate_host(size, known, dict(plan.params)))
    for dim, of in plan.block_counts:
        known[dim] = -(-known[of] // 64)
    return sum(b.dtype.size_bytes * prod(known[dim] for dim in b.dims) for b in buffers)


@pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)
def test_four_times_the_rows_take_four_times_the_memory(path: Path) -> None:
    mixer, sizes = lengths_of(path)
    try:
        derivative = differentiate(mixer)
        total = dict.fromkeys(sizes, 1 << 12)
        for one in (derivative.forward, derivative.backward):
            fixed = {d: sizes[SHORT][d] for d in feature_dims(one) if d in sizes[SHORT]}
            plan = plan_mixer(one, fixed, DType.FLOAT32)
            beside = list(beside_results(plan, derivative.kept))
            for length, at in sizes.items():
                total[length] += held(plan, beside, resized(one, at, {}, {}))
    except UnsupportedError:
        pytest.skip("no derivative by kernels")
    growth = total[LONG] / total[SHORT]
    assert (growth >= 4.5) == (path.stem in SQUARE), growth
