"""Which functions of published packages are found to compute a spec."""

from __future__ import annotations

import sys

import pytest
import torch

from mixc.autotune.bench.package_peers import published
from mixc.autotune.bench.timed_inputs import left_out
from mixc.autotune.checking.sampling import default_sizes, sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.ir.errors import UnsupportedError
from mixc.ir.mixer import Mixer
from mixc.ir.optional import without_inputs


def timed(name: str) -> Mixer:
    """The spec as it is timed: from states of zeros."""
    mixer = load_file(find_spec(name))
    return without_inputs(mixer, left_out(mixer))


@pytest.mark.parametrize(
    ("package", "spec", "function"),
    [
        ("fla", "gated_delta", "naive_chunk_gated_delta_rule"),
        ("fla", "kda", "naive_chunk_kda"),
        ("fla", "delta", "delta_rule_chunkwise"),
        ("fla", "path", "naive_path_attn"),
        ("fla", "log_linear", "naive_log_linear_attn"),
        ("transformers", "mamba", "mamba_selective_scan"),
        ("transformers", "mamba2", "mamba2_chunk_scan"),
    ],
)
def test_a_function_is_found_by_its_arguments_and_results(
    package: str, spec: str, function: str
) -> None:
    pytest.importorskip(package)
    mixer = timed(spec)
    found = published(package, mixer, {})
    assert found.name == function
    sizes = default_sizes(mixer, "one head per group")  # no whole number of chunks
    found = found.at(mixer, sizes, {})
    inputs = sample_inputs(mixer, sizes, torch.float32, seed=3)
    results = found.results(mixer, sizes, found.bound(found.arranged(mixer, inputs))())
    for name, expected in run(mixer, inputs).items():
        torch.testing.assert_close(results[name].double(), expected, rtol=1e-4, atol=1e-4)


def test_a_function_that_computes_something_else_is_not_taken() -> None:
    """RetNet's decay is a constant: nothing with its inputs alone computes it."""
    pytest.importorskip("fla")
    with pytest.raises(UnsupportedError, match="no function of fla"):
        published("fla", timed("retention"), {})


def test_a_package_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fla", None)
    with pytest.raises(UnsupportedError, match="fla is not installed"):
        published("fla", timed("gla"), {})


def test_states_that_start_at_an_input_start_at_zero_when_timed() -> None:
    assert left_out(load_file(find_spec("mlstm"))) == {"C0", "n0", "m0"}
    assert left_out(load_file(find_spec("mamba"))) == {"h0"}
