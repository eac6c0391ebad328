"""Kernels of the library as Triton's last TTGIR has them, executed; and faults that this finds."""

import subprocess

import pytest
import torch

from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.backends.triton import emit
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from tests.backends.triton.normed import NORMED
from tests.evidence.__main__ import examine, sizes_of
from tests.evidence.environment import environment
from tests.evidence.executor import ExecutionError, Executor


@pytest.fixture(scope="module")
def executor():
    try:
        python = environment()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"its packages can't be had: {error}")
    if python is None:
        pytest.skip("no Python 3.12 or newer on this machine")
    with Executor(python) as made:
        yield made


def spec(name):
    return load_file(find_spec(name))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "target", "dtype", "passed", "shares"),
    [
        ("causal", "cuda:90", "bfloat16", "forward", 1),
        ("causal", "cuda:90", "bfloat16", "backward", 1),
        ("gated_delta", "cuda:90", "bfloat16", "forward", 1),
        ("simple_gla", "cuda:80", "bfloat16", "forward", 1),
        ("hgrn", "cuda:100", "float32", "forward", 1),
        ("hgrn", "cuda:90", "bfloat16", "backward", 3),  # rows in segments
    ],
)
def test_kernels_are_right_after_every_pass(executor, name, target, dtype, passed, shares):
    found = examine(executor, spec(name), target, dtype, passed, shares)
    assert found.status == "right", found


def planted(executor, before, after):
    """What causal attention gives with a fault in its text, and without."""
    mixer = spec("causal")
    inputs = sample_inputs(mixer, sizes_of(mixer), torch.bfloat16, 1)

    def plant(source):
        assert before in source
        return source.replace(before, after)

    right = executor.runner()(mixer)(inputs)["o"]
    return executor.runner(change=plant)(mixer)(inputs)["o"].float(), right.float()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("j[None, :] <= i[:, None]", "j[None, :] < i[:, None]"),
        ("tl.exp2(row_max - finite_max)", "tl.exp2(finite_max - row_max)"),
    ],
    ids=["a comparison", "an operand"],
)
def test_planted_faults_are_found(executor, before, after):
    made, right = planted(executor, before, after)
    assert not (made - right).abs().max() < 0.1


@pytest.mark.timeout(600)
def test_a_bound_that_is_off_by_one_is_found(executor):
    with pytest.raises(ExecutionError, match="outside every tensor"):
        planted(executor, "i_exists = i < I", "i_exists = i <= I")


@pytest.mark.timeout(600)
def test_a_copy_over_what_a_product_still_reads_is_found(executor, monkeypatch):
    mixer = load_text(NORMED)
    assert examine(executor, mixer, "cuda:90", "bfloat16", "forward").status == "right"
    monkeypatch.setattr(emit, "with_own_loads", lambda program: program)
    found = examine(executor, mixer, "cuda:90", "bfloat16", "forward")
    assert found.status == "crashed"
    assert "writes where an asynchronous product still reads" in found.message


LARGEST = """
mixer: largest
inputs: {x: [B, T, D], w: [D]}
recurrence:
  over: T
  state: {m: [D]}
  initial: {m: "-inf"}
  step:
    - m = max(m, x)
    - y = relu(x) + max(x, D) + min(x * w, D)
outputs: {y: [B, T, D], m: [B, D]}
"""


@pytest.mark.timeout(600)
def test_a_maximum_keeps_a_nan(executor):
    mixer = load_text(LARGEST)
    x = torch.randn(1, 40, 20)
    x[0, 30, 3] = torch.nan
    inputs = {"x": x, "w": torch.rand(20)}
    found, expected = executor.runner()(mixer)(inputs), run(mixer, inputs)
    for name in ("y", "m"):
        torch.testing.assert_close(found[name], expected[name].float(), equal_nan=True)
