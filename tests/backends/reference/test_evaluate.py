"""Whole mixers: layouts, params, tables, stages, and precision."""

import pytest
import torch

from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_text
from mixc.ir.errors import ArgumentError

STAGED = """
mixer: staged
inputs:
  q: [B, I, G*R, D]
  k: [B, J, G, D]
  v: [B, J, G, E]
  kept: {dims: [B, T], dtype: bool, default: true}
  place: {dims: [B, T], dtype: int32}
dims: {I: T, J: T}
params:
  window: 3
  strength: {default: 1.5, runtime: true}
  near: {dims: [S], values: [2, 5]}
let:
  s: sum(q * k, D)
  far: max(near, S)
  moved: place + 1
stages:
  - attention:
      over: J
      score: strength * s
      mask: abs(i - j) < window and kept[j]
      normalize: softmax
      output: {a: v}
  - map:
      b: a + place[i]
      o: b / far
outputs:
  o: [B, I, G*R*E]
  s: [I, J, 1, B, G*R]
  moved: [B, T]
"""


def tensors():
    shapes = {"q": (2, 5, 6, 3), "k": (2, 5, 3, 3), "v": (2, 5, 3, 4)}
    given = {n: torch.randn(s, dtype=torch.float64) for n, s in shapes.items()}
    return {**given, "place": torch.arange(10, dtype=torch.int32).reshape(2, 5)}


@pytest.mark.parametrize("params", [{}, {"window": 2, "strength": -0.5}])
@pytest.mark.parametrize("masked", [False, True])
def test_stages_params_tables_and_layouts(params, masked):
    given = tensors()
    kept = torch.rand(2, 5) < 0.6 if masked else torch.ones(2, 5, dtype=torch.bool)
    found = run(load_text(STAGED), {**given, "kept": kept} if masked else given, params)
    k, v = (given[n].repeat_interleave(2, 2) for n in "kv")
    scores = torch.einsum("bihd,bjhd->bhij", given["q"], k)
    assert torch.allclose(found["s"], scores.permute(2, 3, 0, 1)[:, :, None])
    i, j = torch.arange(5)[:, None], torch.arange(5)[None, :]
    seen = ((i - j).abs() < params.get("window", 3)) & kept[:, None, None, :]
    logits = (params.get("strength", 1.5) * scores).masked_fill(~seen, -torch.inf)
    weights = torch.softmax(logits, -1).nan_to_num(0)
    a = torch.einsum("bhij,bjhe->bihe", weights, v)
    wanted = (a + given["place"][:, :, None, None]) / 5
    torch.testing.assert_close(found["o"], wanted.reshape(2, 5, 24))
    assert torch.equal(found["moved"], given["place"].long() + 1)


def test_any_strides_and_any_dtype_of_the_caller():
    mixer = load_text(STAGED)
    given = tensors()
    views = {n: t.mT.contiguous().mT for n, t in given.items()}
    assert not views["q"].is_contiguous()
    assert torch.equal(run(mixer, views)["o"], run(mixer, given)["o"])
    single = {n: t.float() if t.is_floating_point() else t for n, t in given.items()}
    assert run(mixer, single)["o"].dtype == torch.float64


@pytest.mark.parametrize(
    ("dtype", "least", "most"),
    [(torch.float32, 1e-9, 1e-5), (torch.float16, 1e-5, 1e-1), (torch.bfloat16, 1e-4, 1.0)],
)
def test_a_lower_precision_is_close_and_not_exact(dtype, least, most):
    mixer = load_text(STAGED)
    given = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors().items()}
    exact, found = run(mixer, given)["o"], run(mixer, given, dtype=dtype)["o"]
    assert found.dtype == dtype
    assert least < (found.double() - exact).abs().max() < most


def test_gradients_of_a_whole_mixer():
    mixer = load_text(STAGED)
    given = {n: t[:1].clone() for n, t in tensors().items()}
    reals = {n: given[n].requires_grad_() for n in "qkv"}
    kept = torch.tensor([[True, True, False, False, False]])

    def outputs(q, k, v):
        return run(mixer, {"q": q, "k": k, "v": v, "place": given["place"], "kept": kept})["o"]

    assert torch.autograd.gradcheck(outputs, tuple(reals.values()))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ArgumentError, match=r"k: expected \[B, J, G, D\] with J = 5 as I in q"):
        run(load_text(STAGED), {**tensors(), "k": torch.zeros(2, 6, 3, 3)})
    with pytest.raises(ArgumentError, match="did you mean 'window'"):
        run(load_text(STAGED), tensors(), {"windw": 3})


def test_a_long_sum_is_no_deeper_than_the_stack():
    terms = " + ".join(["x"] * 80)
    mixer = load_text(f"mixer: deep\ninputs: {{x: [T]}}\nmap:\n  o: {terms}\noutputs: {{o: [T]}}")
    assert run(mixer, {"x": torch.ones(2)})["o"].tolist() == [80.0, 80.0]
