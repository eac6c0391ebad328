"""Gradients of what is read by index, or is one number: exact, as kernels have them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mixc
from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.params_as_inputs import params_as_inputs

from ...plans import assert_equal
from .test_differentiate import assert_same, gradients

SPEC = """
mixer: m
inputs:
  q: [B, H, I, D]
  k: [B, G, J, D]
  v: [B, G, J, E]
  slope: [H]
  table: [H, S]
  codes: [V, D]
  token: {dims: [B, J], dtype: int32}
  shift: []
dims: {I: T, J: T}
heads: {G: H}
params:
  sharpness: {default: 1.0, runtime: true}
attention:
  over: J
  score: >
    sharpness * (sum(q * k, D) + sum(q * at(codes, V=token), D)) - slope * (i - j)
    + at(table, S=min(i - j, S - 1)) + shift * j
  mask: j <= i
  normalize: softmax
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""
SIZES = {"B": 2, "H": 4, "G": 2, "T": 9, "I": 9, "J": 9, "D": 4, "E": 3, "S": 5, "V": 7}


def test_each_has_a_gradient_and_kernels_compute_it() -> None:
    mixer = params_as_inputs(load_text(SPEC), ["sharpness"])
    drawn = sample_inputs(mixer, SIZES, torch.float64)
    inputs = {n: t.double() if t.is_floating_point() else t for n, t in drawn.items()}
    derivative, found, wanted = gradients(mixer, inputs, {})
    assert {*found} == {i.name for i in mixer.inputs} - {"token"}
    assert all(gradient.any() for gradient in wanted.values())
    assert_same(found, wanted)
    forward = run(derivative.forward, inputs)
    known = {**inputs, **forward, "d_o": torch.randn_like(forward["o"])}
    backward = derivative.backward
    assert_equal(backward, {i.name: known[i.name] for i in backward.inputs})


@pytest.mark.parametrize(
    "place", ["t // 2", "t // 3 * 3", "min(t + 2, T - 1)", "2 * t - 3", "t * t % T", "(t + 1) % T"]
)
def test_rows_of_the_same_axis(place: str) -> None:
    """Several positions may read one: what they give back is summed along an axis of its own."""
    text = f"""
mixer: m
inputs: {{x: [B, T, C], w: [C]}}
map: {{y: "w * tanh(x)[T={place}] + x"}}
outputs: {{y: [B, T, C]}}
"""
    mixer = load_text(text)
    inputs = sample_inputs(mixer, {"B": 2, "T": 21, "C": 5}, torch.float64)
    derivative, found, wanted = gradients(mixer, inputs, {})
    assert_same(found, wanted)
    backward = derivative.backward
    known = {**inputs, "d_y": torch.randn(2, 21, 5, dtype=torch.float64)}
    assert_equal(backward, {i.name: known[i.name] for i in backward.inputs})


@pytest.mark.parametrize("op", ["max", "min"])
def test_an_extreme_of_what_is_made_is_found_again(op: str) -> None:
    """One number is summed on a tile for the comparison, in a loop for the extreme: no row was
    the largest where the two differ in the last place, and its gradient was lost."""
    text = f"""
mixer: m
inputs: {{x: [T, D, E]}}
map: {{y: "{op}(l2norm(x * x, E, eps=1e-3), T)"}}
outputs: {{y: [D, E]}}
"""
    mixer = load_text(text)
    inputs = sample_inputs(mixer, {"T": 9, "D": 40, "E": 16}, torch.float64)
    derivative, found, wanted = gradients(mixer, inputs, {})
    assert_same(found, wanted)
    backward = derivative.backward
    known = {**inputs, "d_y": torch.randn(40, 16, dtype=torch.float64)}
    assert_equal(backward, {i.name: known[i.name] for i in backward.inputs})


def test_an_extreme_of_rows_of_a_recurrence(tmp_path: Path) -> None:
    """What its backward pass is given is planned with the recurrence."""
    spec = tmp_path / "largest.yaml"
    spec.write_text("""
mixer: largest
inputs: {x: [B, T, C], w: [C]}
stages:
  - recurrence: {over: T, state: {h: [C]}, step: ["h = 0.5 * h + x", "m = h"]}
  - map: {y: "max(sum(m * w, C), T) * x"}
outputs: {y: [B, T, C]}
""")
    mixer, found = load_file(spec), []
    inputs = sample_inputs(mixer, {"B": 2, "T": 9, "C": 16}, torch.float32)
    for backend in ("cpu", "reference"):
        dtype = torch.float64 if backend == "reference" else torch.float32
        leaves = [tensor.to(dtype, copy=True).requires_grad_() for tensor in inputs.values()]
        made = mixc.load(spec, backend=backend)(*leaves)  # type: ignore[arg-type]
        found.append(torch.autograd.grad(made.sum(), leaves))
    for ours, exact in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)


def test_positions_of_an_axis_of_their_own_in_a_large_kernel() -> None:
    """A value beside them is not called as their number is."""
    mixer = load_text("""
mixer: m
inputs: {x: [E]}
map:
  y: "at(x, E=clip(e + 1, 0, E - 1), fill=1)"
  z: "rmsnorm(cumsum(y, E) / 10 * x, E, eps=0.1)"
outputs: {y: [E], z: [E]}
""")
    inputs = sample_inputs(mixer, {"E": 21}, torch.float64)
    derivative, found, wanted = gradients(mixer, inputs, {})
    assert_same(found, wanted)
    cotangents = {name: torch.randn(21, dtype=torch.float64) for name in ("d_y", "d_z")}
    known = {**inputs, **run(derivative.forward, inputs), **cotangents}
    assert_equal(derivative.backward, {i.name: known[i.name] for i in derivative.backward.inputs})


def test_the_norm_of_nothing_but_zeros() -> None:
    """No length, no direction: 0, as of torch's norm. The root itself has an infinite slope."""
    text = """
mixer: m
inputs: {x: [B, T, D]}
map: {y: "norm(x, D)", s: "norm(x, T, where=t > 1)"}
outputs: {y: [B, T], s: [B, D]}
"""
    mixer = load_text(text)
    inputs = sample_inputs(mixer, {"B": 2, "T": 7, "D": 5}, torch.float64)
    inputs["x"][0] = 0.0
    inputs["x"][1, 3] = 0.0
    derivative, found, wanted = gradients(mixer, inputs, {})
    assert_same(found, wanted)
    x = inputs["x"].clone().requires_grad_()
    lengths = torch.linalg.vector_norm(x, dim=-1), torch.linalg.vector_norm(x[:, 2:], dim=1)
    made = run(derivative.forward, inputs)
    for own, usual in zip((made["y"], made["s"]), lengths, strict=True):
        torch.testing.assert_close(own, usual)
    assert torch.autograd.grad(lengths[0].sum(), x)[0].isfinite().all()
    assert found["x"].isfinite().all()
    known = {**inputs, "d_y": torch.randn(2, 7).double(), "d_s": torch.randn(2, 5).double(), **made}
    assert_equal(derivative.backward, {i.name: known[i.name] for i in derivative.backward.inputs})
