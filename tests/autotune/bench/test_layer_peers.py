"""Layers of torch, and its FFT, as peers of the recurrences that they compute."""

from __future__ import annotations

import pytest
import torch

from mixc.autotune.bench.bench import bench
from mixc.autotune.bench.layer_peers import layer
from mixc.autotune.bench.peers import Setting
from mixc.autotune.bench.timed_inputs import left_out, timed_inputs
from mixc.autotune.checking.sampling import default_sizes
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.ir.errors import UnsupportedError
from mixc.ir.optional import without_inputs


def setting(name: str, dtype: torch.dtype = torch.float32) -> Setting:
    mixer = load_file(find_spec(name))
    mixer = without_inputs(mixer, left_out(mixer))
    sizes = default_sizes(mixer, "one head per group")
    return Setting(mixer, sizes, timed_inputs(mixer, sizes, dtype), dtype, {})


@pytest.mark.parametrize(
    ("name", "what", "lacks"),
    [
        ("lstm", "torch.nn.LSTM", ()),
        ("gru", "torch.nn.GRU", ()),
        ("elman", "torch.nn.RNN", ()),
        ("s4d", "torch.fft", ("h_re", "h_im")),
        ("fnet", "torch.fft.fft2", ()),
    ],
)
def test_a_layer_computes_the_spec(name: str, what: str, lacks: tuple[str, ...]) -> None:
    given = setting(name)
    call = layer(given)
    assert call.what.startswith(what)
    assert call.lacks == lacks
    assert call.checked is not None
    found = call.results(call.checked())
    wanted = run(given.mixer, given.tensors)
    assert {*found} == {*wanted} - {*lacks}
    for output, tensor in found.items():
        torch.testing.assert_close(tensor.double(), wanted[output], rtol=1e-4, atol=1e-4)
    timed = call.results(call.run())
    assert {n: t.shape for n, t in timed.items()} == {n: t.shape for n, t in found.items()}


@pytest.mark.parametrize("name", ["slstm", "gla", "causal"])
def test_what_is_no_layer_of_torch_is_said_so(name: str) -> None:
    with pytest.raises(UnsupportedError, match="no layer"):
        layer(setting(name))


def test_a_layer_beside_ours_in_16_bits() -> None:
    given = setting("lstm", torch.bfloat16)
    found = bench(
        given.mixer,
        lambda tensors: run(given.mixer, tensors, dtype=torch.bfloat16),
        given.sizes,
        torch.bfloat16,
        peers=("layer", "layer-fp32"),
        rounds=2,
    )
    assert [(r.status, r.message) for r in found.rows[1:]] == [("timed", "")] * 2
