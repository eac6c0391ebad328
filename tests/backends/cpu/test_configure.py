"""Blocks that a CPU takes keep what lowering has promised of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mixc.backends.cpu.configure import configure, defaults, fill_cores, narrow_states, short_keys
from mixc.backends.cpu.emit import emit_source, final_form
from mixc.backends.cpu.run import run_plan
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.errors import ArgumentError, PromiseError
from mixc.ir.mixer import Recurrence
from mixc.ir.plan import Plan
from mixc.ir.roles import feature_dims
from mixc.ir.targets import AVX2, AVX512_BF16

SPECS = {path.stem: path for path in library()}


def lowered(path: Path, size: int, recurrence: str = "loop") -> Plan:
    mixer = load_file(path)
    return lower(mixer, dict.fromkeys(feature_dims(mixer), size), "float32", recurrence=recurrence)


@pytest.mark.parametrize("path", SPECS.values(), ids=SPECS)
def test_default_blocks_keep_every_promise(path: Path) -> None:
    """States of 128 x 128 were walked in blocks of 48."""
    walks = any(isinstance(stage, Recurrence) for stage in load_file(path).stages)
    for recurrence in ("loop", "chunk") if walks else ("loop",):
        plan = lowered(path, 128, recurrence)
        for target in (AVX2, AVX512_BF16):
            own = defaults(target) | narrow_states(plan, target)
            final_form(configure(plan, own))  # raises where one is broken


def test_a_broken_promise_is_never_emitted() -> None:
    plan = configure(lowered(SPECS["gla"], 128), defaults(AVX2))
    (kernel,) = plan.kernels
    tiles = tuple(replace(t, block=48) if t.dim == "E" else t for t in kernel.program.tiles)
    broken = replace(kernel, program=replace(kernel.program, tiles=tiles))
    with pytest.raises(PromiseError, match="blocks of E divide 128; 48 does not"):
        emit_source(replace(plan, kernels=(broken,)), AVX2)


@pytest.mark.parametrize("wrong", [{"block_rows": 48}, {"block_keys": 0}, {"rows_at_once": -1}])
def test_values_that_no_kernel_is_made_for_are_refused(wrong: dict[str, int]) -> None:
    plan = lowered(SPECS["gla"], 128)
    (name, value), *_ = wrong.items()
    with pytest.raises(ArgumentError, match=f"{name}: expected .* or .*, got {value}"):
        configure(plan, {**defaults(AVX2), **wrong})


def test_a_plan_does_not_run_at_lengths_that_it_is_not_made_for() -> None:
    plan = configure(lowered(SPECS["gla"], 128), defaults(AVX2))
    sizes = {"B": 1, "T": 3, "H": 1, "D": 64, "E": 128}
    with pytest.raises(PromiseError, match="gla is made for D = 128, not 64"):
        run_plan(plan, {}, sizes)


def test_few_heads_are_no_few_keys() -> None:
    """A backward pass sums its parts over heads in a kernel of its own."""
    backward = differentiate(load_file(SPECS["causal"])).backward
    plan = lower(backward, {"D": 64, "E": 64}, "float32")
    sizes = {"B": 1, "H": 2, "G": 2, "I": 4096, "J": 4096}
    assert short_keys(plan, sizes) == {}
    assert short_keys(plan, {**sizes, "I": 16, "J": 16}) == {"block_keys": 16}


@pytest.mark.parametrize(
    ("batch", "cores", "block"), [(1, 1, 64), (1, 2, 32), (2, 2, 64), (1, 4, 16), (1, 64, 16)]
)
def test_few_heads_share_their_states_out(batch: int, cores: int, block: int) -> None:
    plan = configure(lowered(SPECS["gla"], 64), defaults(AVX2))
    sizes = {**dict(plan.sizes), "B": batch, "H": 1, "T": 100}
    (kernel,) = fill_cores(plan, sizes, cores).kernels
    assert kernel.program.tile("E").block == block


@pytest.mark.parametrize(("batch", "cores", "block"), [(16, 1, 16), (16, 2, 8), (32, 2, 16)])
def test_cells_share_their_batch_out(batch: int, cores: int, block: int) -> None:
    lowered = lower(load_file(SPECS["lstm"]), {"D": 256, "P": 256}, target=AVX2)
    plan = configure(lowered, defaults(AVX2))
    sizes = {**dict(plan.sizes), "B": batch, "H": 1, "T": 100}
    (kernel,) = fill_cores(plan, sizes, cores).kernels
    assert kernel.program.tile("B").block == block


def test_a_short_axis_beside_a_long_one_is_not_filled_up() -> None:
    """The four gates of an LSTM's gradients are no 16; the cells themselves, in vectors, are."""
    (path,) = (path for path in library() if path.stem == "lstm")
    backward = differentiate(load_file(path), ("x", "R")).backward
    plan = lower(backward, {"D": 20, "P": 20, "K": 4}, "float32", recurrence="loop")
    kernels = configure(plan, defaults(AVX2)).kernels
    blocks = {(t.dim, t.block) for kernel in kernels for t in kernel.program.tiles if t.whole}
    assert blocks == {("D", 32), ("P", 32), ("K", 4)}


@pytest.mark.parametrize(
    ("name", "narrow"),
    [
        ("retention", 32),
        ("mamba", 16),
        ("gla", None),
        ("gated_delta", None),
        ("lstm", None),
        ("causal", None),
    ],
)
def test_columns_of_a_state_are_few_where_no_function_of_a_row_is_repeated(name, narrow) -> None:
    """Registers hold 16 states of 16 channels; gla's decays by key would be made in each block, a
    delta rule waits for its own sums, and an LSTM's blocks are rows of a batch."""
    sizes = {"D": 64, "E": 64, "P": 64, "C": 512, "N": 16}
    mixer = load_file(SPECS[name])
    sizes = {dim: size for dim, size in sizes.items() if dim in feature_dims(mixer)}
    walks = {"recurrence": "loop"} if name != "causal" else {}
    plan = lower(mixer, sizes, "float32", target=AVX512_BF16, **walks)
    assert narrow_states(plan, AVX512_BF16) == ({"block_rows": narrow} if narrow else {})
    assert narrow_states(plan, AVX2) == {}
    large = replace(AVX512_BF16, l1_bytes=48 << 10)
    few = {"block_rows": narrow} if narrow == 16 else {}
    together = {} if name == "causal" else {"rows_at_once": 2}
    assert narrow_states(plan, large) == few | together


@pytest.mark.parametrize(("kib", "block"), [(32, 48), (48, 64)])
def test_states_stay_in_the_first_cache(kib: int, block: int) -> None:
    plan = lower(load_file(SPECS["retention"]), {"D": 128, "E": 192}, "float32", recurrence="loop")
    (kernel,) = configure(plan, defaults(AVX512_BF16), l1_bytes=kib << 10).kernels
    assert kernel.program.tile("E").block == block
