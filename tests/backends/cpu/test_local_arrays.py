"""Tiles lie where there is room for them: a stack is small, and nothing says when it ends."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest
import torch

from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.cpu.configure import configure, defaults
from mixc.backends.cpu.emit import emit_source
from mixc.backends.cpu.local_arrays import STACK_BYTES, LocalArrays
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.roles import feature_dims
from mixc.ir.targets import AVX2


def by_chunks(spec: str, size: int) -> str:
    """The C++ of a spec whose features all have a size."""
    mixer = load_file(find_spec(spec))
    plan = lower(mixer, dict.fromkeys(feature_dims(mixer), size), "float32", recurrence="chunk")
    return emit_source(configure(plan, defaults(AVX2)), AVX2).text


def on_a_small_stack(work: Callable[[], None]) -> None:
    """Work on a thread with the stack that threads have where none is asked for: 2 MiB."""
    failures: list[BaseException] = []

    def worked() -> None:
        torch.set_num_threads(1)
        try:
            work()
        except BaseException as failure:  # it belongs to the test
            failures.append(failure)

    before = threading.stack_size(2 * STACK_BYTES)
    try:
        thread = threading.Thread(target=worked)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    if failures:
        raise failures[0]


def test_arrays_on_the_stack_fit_it() -> None:
    arrays = LocalArrays(str)
    declared = [arrays.declare("float", f"large{n}", STACK_BYTES // 8) for n in range(100)]
    declared += [arrays.declare("float", f"row{n}", 64) for n in range(100)]
    on_stack = [lines for lines in declared if "Heap" not in lines[0]]
    assert declared[0] in on_stack
    assert set(declared[100:]) <= set(on_stack)
    counts = [int(count) for (line,) in on_stack for count in re.findall(r"\[(\d+)\]", line)]
    assert 4 * sum(counts) <= STACK_BYTES


def test_stored_tiles_are_narrowed_and_others_are_not() -> None:
    """Scans of 64 x 64 x 192 numbers took 3 MiB each; products of as many are never stored."""
    scans, products = by_chunks("ema", 192), by_chunks("s5", 192)
    assert re.findall(r"BLOCK_[CT] = (\d+);", scans) == ["16", "16"]
    assert set(re.findall(r"BLOCK_[CT] = (\d+);", products)) == {"64", "192"}


@pytest.mark.parametrize(
    ("spec", "size", "by_rows"),
    [("ema", 192, 0), ("s4d", 64, 0), ("lstm", 512, 1)],
)
def test_kernels_with_large_tiles_run_on_a_small_stack(spec: str, size: int, by_rows: int) -> None:
    mixer = load_file(find_spec(spec))
    sizes = default_sizes(mixer, Proportions((17,), (size,), 1, 1, (1,), 13))
    inputs = sample_inputs(mixer, sizes, torch.float32)
    runner = CpuRunner(mixer, lower, {"by_rows": by_rows}, flags=("-O1",))

    def work() -> None:
        expected = run(mixer, {name: tensor.double() for name, tensor in inputs.items()})
        for name, made in runner(inputs).items():
            torch.testing.assert_close(made.double(), expected[name], rtol=1e-4, atol=1e-4)

    on_a_small_stack(work)
