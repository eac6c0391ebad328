"""What the convolution form means, as float64 tensors, and what it refuses."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.every_error import every_error
from mixc.compiler.language.load import load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.mixers.pack.pack_sequences import packing
from mixc.ir.errors import SpecError

SPEC = """\
mixer: mixed
inputs:
  x: [B, T, C]
  h: [C, L]
convolution:
  over: T
  lag: L
  kernel: h
  signal: x
  output: y
outputs: {y: [B, T, C]}
"""
ALL = SPEC.replace("  h: [C, L]", "  a: [C]").replace("kernel: h", "kernel: exp(-a * abs(l - 1))")


def spec(*changes, text=SPEC):
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return load_text(text)


def tensors(length, taps=4, per_sample=False):
    torch.manual_seed(0)
    shape = (2, 3, taps) if per_sample else (3, taps)
    x, h = torch.randn(2, length, 3, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    return {"x": x, "h": h}


def y(mixer, given):
    return run(mixer, given)["y"]


@pytest.mark.parametrize("length", [0, 1, 3, 9])
def test_causal_taps_are_the_conv1d_of_torch_from_the_other_end(length):
    given = tensors(length)
    padded = F.pad(given["x"].mT, (3, 0))
    expected = F.conv1d(padded, given["h"].flip(-1)[:, None], groups=3).mT if length else given["x"]
    torch.testing.assert_close(y(spec(), given), expected)


def test_so_many_taps_to_both_sides_have_their_middle_here():
    both = ("  signal", "  causal: false\n  signal")
    for taps in (1, 4, 5):
        given = tensors(9, taps)
        padded = F.pad(given["x"].mT, ((taps - 1) - taps // 2, taps // 2))
        expected = F.conv1d(padded, given["h"].flip(-1)[:, None], groups=3).mT
        torch.testing.assert_close(y(spec(both), given), expected)


@pytest.mark.parametrize("taps", [3, 7, 12])
def test_around_the_end_it_is_a_product_of_spectra_for_each_sample(taps):
    given = tensors(7, taps, per_sample=True)
    wrapped = torch.zeros(2, 3, 14, dtype=torch.float64)
    wrapped[..., :taps] = given["h"]
    wrapped = wrapped.unflatten(-1, (2, 7)).sum(-2)  # taps beyond the end go around again
    spectrum = torch.fft.fft(wrapped) * torch.fft.fft(given["x"].mT)
    mixer = spec(("[C, L]", "[B, C, L]"), ("  signal", "  mode: circular\n  signal"))
    torch.testing.assert_close(y(mixer, given), torch.fft.ifft(spectrum).real.mT)


@pytest.mark.parametrize("causal", [True, False])
def test_an_axis_that_nothing_else_has_is_every_lag_of_the_sequence(causal):
    mixer = spec(("  signal", f"  causal: {str(causal).lower()}\n  signal"), text=ALL)
    given = {"x": tensors(8)["x"], "a": torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)}
    lags = np.arange(0 if causal else -7, 8)
    for c in range(3):
        kernel = np.exp(-given["a"][c].item() * abs(lags - 1))
        first = 0 if causal else 7
        for b in range(2):
            whole = np.convolve(given["x"][b, :, c].numpy(), kernel)[first : first + 8]
            np.testing.assert_allclose(y(mixer, given)[b, :, c], whole, atol=1e-12)


def test_documents_of_a_packed_row_do_not_hear_each_other():
    mixers = [
        spec(),
        spec(("  signal", "  causal: false\n  signal")),
        spec(("  signal", "  mode: circular\n  signal")),
        spec(("  signal", "  causal: false\n  signal"), text=ALL),
    ]
    for mixer in mixers:
        given = tensors(9) | {"a": torch.rand(3, dtype=torch.float64)}
        given = {i.name: given[i.name] for i in mixer.inputs}
        cuts = torch.tensor([0, 3, 4, 9])
        numbers = torch.bucketize(torch.arange(9), cuts[1:], right=True)
        edges = {"first": cuts[numbers], "end": cuts[numbers + 1]}
        packed = packing(mixer)
        tables = {t.name: edges.get(t.what, numbers) for t in packed.tables}
        made = y(packed.mixer, given | tables)
        for low, high in ((0, 3), (3, 4), (4, 9)):
            own = y(mixer, given | {"x": given["x"][:, low:high]})
            torch.testing.assert_close(made[:, low:high], own)


@pytest.mark.parametrize("mode", ["zero", "circular"])
def test_the_gradients_as_equations_are_those_of_autograd(mode):
    mixer = spec(("  signal", f"  mode: {mode}\n  signal"))
    given = {name: tensor.requires_grad_() for name, tensor in tensors(6).items()}
    made = y(mixer, given)
    d_y = torch.randn_like(made)
    expected = torch.autograd.grad(made, list(given.values()), d_y)
    backward = differentiate(mixer).backward
    plain = {name: tensor.detach() for name, tensor in given.items()} | {"d_y": d_y}
    gradients = run(backward, {i.name: plain[i.name] for i in backward.inputs})
    for name, gradient in zip(given, expected, strict=True):
        torch.testing.assert_close(gradients[f"d_{name}"], gradient)


WRONG = {
    "no output": ("  output: y\n", "", "6:3", "a convolution has no `output`"),
    "no axis": ("over: T", "over: K", "6:9", "`K` is no dim of this spec"),
    "one axis": ("lag: L", "lag: T", "7:8", "the lags run along T itself", "name another axis"),
    "no signal": ("signal: x", "signal: h", "9:11", "the signal lacks the axis T", "C, L"),
    "lags too": ("signal: x", "signal: x * l", "9:11", "the signal has the axis L"),
    "mode": ("  signal", "  mode: reflect\n  signal", "9:9", "unknown mode `reflect`", "circular"),
    "forgotten sum": ("kernel: h", "kernel[C]: h", "8:10", "the kernel has the axes [C, L]"),
    "forms": ("outputs:", "map: {z: x}\noutputs:", "11:1", "`map` beside `convolution`"),
    "name": ("output: y", "output: x", "10:11", "`x` is declared already"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_says_where_and_what(case):
    old, new, place, *words = WRONG[case]
    with pytest.raises(SpecError) as error:
        spec((old, new))
    assert f"<text>:{place}: " in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_a_table_of_taps_has_none_at_negative_lags():
    text = ALL.replace("  over", "  let: {h: exp(-a * l)}\n  causal: false\n  over")
    with pytest.raises(SpecError, match=r"none for lags below 0(?s:.*)give L a size of its own"):
        load_text(text.replace("exp(-a * abs(l - 1))", "h"))


def test_every_error_is_found_at_once():
    text = SPEC.replace("  kernel", "  mode: reflect\n  kernel").replace("signal: x", "signal: w")
    assert [error.line for error in every_error(text)] == [8, 10]


def test_a_stage_like_another_has_names_of_its_own():
    text = """
mixer: twice
inputs: {x: [T, C], h: [C, L], g: [C, L]}
stages:
  - name: first
    convolution: {over: T, lag: L, kernel: h, signal: x, output: y}
  - like: first
    suffix: _2
    with: {h: g, x: y}
outputs: {y_2: [T, C]}
"""
    given = {k: torch.randn(3, 3, dtype=torch.float64) for k in "hg"}
    given["x"] = torch.randn(5, 3, dtype=torch.float64)
    once = run(load_text(text), given)["y_2"]
    for c in range(3):
        whole = np.convolve(np.convolve(given["x"][:, c], given["h"][c]), given["g"][c])
        np.testing.assert_allclose(once[:, c], whole[:5], atol=1e-12)
