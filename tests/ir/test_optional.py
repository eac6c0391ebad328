"""Inputs left out: a number without axes, and what follows for the equations."""

from dataclasses import replace

import pytest
import torch

import mixc
from mixc.autotune.checking.proportions import resized
from mixc.autotune.checking.sampling import default_sizes, sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file, load_text
from mixc.ir.errors import ArgumentError
from mixc.ir.expression import Literal
from mixc.ir.mixer import Attention, Recurrence
from mixc.ir.optional import free_dims, without_inputs
from mixc.ir.verify_mixer import verify_mixer

BIASED = """
mixer: biased
inputs:
  q: [B, H, I, D]
  k: [B, G, J, D]
  v: [B, G, J, E]
  bias: {dims: [B, H, I, J], default: 0.5}
  slope: {dims: [G], default: 2}
  rows: {dims: [N, E], default: 3}
dims: {I: T, J: T}
heads: {G: H}
let:
  steep: slope * (i - j)
attention:
  over: J
  score: sum(q * k, D) + bias - steep
  normalize: softmax
  output:
    o: v + at(rows, N=j)
outputs: {o: [B, H, I, E]}
"""


def tensors(**shapes):
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def test_an_absent_input_is_its_default():
    mixer = load_text(BIASED)
    given = tensors(q=(2, 6, 5, 4), k=(2, 3, 5, 4), v=(2, 3, 5, 7))
    bias = torch.full((2, 6, 5, 5), 0.5, dtype=torch.float64)
    full = {**given, "bias": bias, "slope": torch.full((3,), 2.0).double()}
    full["rows"] = torch.full((5, 7), 3.0).double()
    absent = run(mixer, {**given, "rows": full["rows"]})["o"]
    torch.testing.assert_close(absent, run(mixer, full)["o"], rtol=1e-12, atol=0)


def test_names_lose_the_axes_of_what_is_absent():
    mixer = load_text(BIASED)
    reduced = without_inputs(mixer, ["bias", "slope", "rows"])
    assert [i.name for i in reduced.inputs] == ["q", "k", "v"]
    (steep,) = reduced.lets
    assert steep.value.axes == {"I", "J"}
    (stage,) = reduced.stages
    assert isinstance(stage, Attention)
    assert stage.score.axes == {"B", "H", "I", "J"}
    assert stage.queries == {"B", "H", "I"}


def test_an_axis_that_only_the_absent_bias_had_leaves_the_stage():
    text = """
mixer: shared
inputs:
  k: [J, D]
  q: [I, D]
  v: [J, E]
  bias: {dims: [H, I, J], default: 0}
attention:
  over: J
  score: sum(q * k, D) + bias
  normalize: {weight: exp(score), denominator: total + 1}
  output: {o: v}
  lse: lse
outputs: {o: [H, I, E]}
"""
    mixer = load_text(text)
    (stage,) = without_inputs(replace(mixer, outputs=()), ["bias"]).stages
    assert isinstance(stage, Attention)
    assert stage.queries == {"I"}
    assert {r.name: r.dims for r in stage.results} == {"o": {"I", "E"}, "lse": {"I"}}
    assert "H" in free_dims(without_inputs(mixer, ["bias"]))


@pytest.mark.parametrize(
    ("term", "value"),
    [
        ("sum(w, C)", 6.0),
        ("max(w, C)", 2.0),
        ("mean(w, C)", 2.0),
        ("w[C=1]", 2.0),
        ("w[C=7]", 0.0),
        ("sum(cumsum(w, C), C)", 12.0),
        ("sum(cumsum(w, C, exclusive=true), C)", 6.0),
        ("cumsum(w, C, reverse=true)[C=0]", 6.0),
    ],
)
def test_terms_along_an_axis_that_is_gone(term, value):
    text = f"""
mixer: terms
inputs:
  x: [T, C]
  w: {{dims: [C], default: 2}}
map:
  o: "sum(x, C) * 0 + {term}"
outputs: {{o: [T]}}
"""
    x = torch.ones(2, 3, dtype=torch.float64)
    w = torch.full((3,), 2.0, dtype=torch.float64)
    mixer = load_text(text)
    wanted = torch.full((2,), value, dtype=torch.float64)
    assert torch.equal(run(mixer, {"x": x, "w": w})["o"], wanted)
    assert torch.equal(run(mixer, {"x": x})["o"], wanted)


STARTED = """
mixer: started
inputs:
  k: [T, D]
  v: [T, E]
  S0: {dims: [B, D, E], default: 0.5}
  A: {dims: [D, P], default: 2}
  done: {dims: [B, T], dtype: bool, default: false}
recurrence:
  over: T
  state: {S: [D, E], n: []}
  initial: {S: S0}
  reset: done
  step:
    - u = v - sum(k * S, D)
    - S = S + k * u
    - n = n + 1
    - c = u
outputs: {S: [B, D, E], c: [B, T, E], n: [B]}
"""


def test_states_lose_the_axes_of_what_is_absent():
    mixer = replace(load_text(STARTED), outputs=())
    (whole,), (reduced,) = mixer.stages, without_inputs(mixer, ["S0", "done"]).stages
    assert {s.name: s.dims for s in whole.states} == {"S": set("BDE"), "n": {"B"}}
    assert {s.name: s.dims for s in reduced.states} == {"S": set("DE"), "n": set()}
    assert {r.name: r.dims for r in reduced.results}["u"] == set("TE")
    assert reduced.states[0].initial == Literal(0.5)
    verify_mixer(without_inputs(mixer, ["S0", "done"]))


def test_a_state_keeps_the_axes_that_one_input_gives():
    reduced = without_inputs(replace(load_text(STARTED), outputs=()), ["done"])
    verify_mixer(reduced)
    assert {s.name: s.dims for s in reduced.stages[0].states} == {"S": set("BDE"), "n": set()}


def test_a_system_of_equal_numbers():
    text = """
mixer: solved
inputs: {b: {dims: [B, D], default: 3}, A: [D, P], d0: {dims: [D], default: 1}}
map: {x: "solve(A * d0, b, D=P)"}
outputs: {x: [B, P]}
"""
    verify_mixer(without_inputs(replace(load_text(text), outputs=()), ["b", "d0"]))


OPTIONAL = [m for m in map(load_file, library()) if any(i.default is not None for i in m.inputs)]


@pytest.mark.parametrize("mixer", OPTIONAL, ids=lambda m: m.name)
def test_an_absent_input_of_the_library_is_a_tensor_of_its_default(mixer):
    rows = {stage.over: 9 for stage in mixer.stages if isinstance(stage, Recurrence)}
    sizes = resized(mixer, default_sizes(mixer), rows, {})
    given = sample_inputs(mixer, sizes, torch.float64)
    filled = dict(given)
    for declared in mixer.inputs:
        if declared.default is not None:
            filled[declared.name] = torch.full_like(given[declared.name], declared.default)
            del given[declared.name]
    absent, present = run(mixer, given), run(mixer, filled)
    for name, wanted in present.items():
        torch.testing.assert_close(absent[name], wanted, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_an_output_keeps_the_axes_that_only_an_absent_input_has():
    mixer = load_text(
        """
mixer: spread
inputs:
  q: [B, I, D]
  k: [B, J, D]
  v: [B, J, E]
  slope: {dims: [H], default: 0}
  g: {dims: [B, H, J], default: 1}
dims: {I: T, J: T}
let: {twice: g * 2}
attention:
  over: J
  score: sum(q * k, D) - slope * (i - j)
  output: {o: v}
  lse: l
outputs: {o: [B, H, I, E], l: [B, H, I], twice: [B, H, J]}
"""
    )
    given = tensors(q=(2, 5, 4), k=(2, 5, 4), v=(2, 5, 3))
    slope, g = torch.zeros(3).double(), torch.ones(2, 3, 5).double()
    whole = run(mixer, {**given, "slope": slope, "g": g})
    for more in ({"slope": slope}, {"g": g}):
        found = run(mixer, {**given, **more})
        for name, expected in whole.items():
            torch.testing.assert_close(found[name], expected, rtol=1e-12, atol=0)
    with pytest.raises(ArgumentError, match="no input that was given tells the size of H"):
        run(mixer, given)


def test_what_a_call_without_its_only_size_lacks_is_said(tmp_path):
    path = tmp_path / "wide.yaml"
    path.write_text(
        "mixer: wide\ninputs: {x: [B, T], w: {dims: [H], default: 1}}\n"
        "map: {o: x * w}\noutputs: {o: [B, T, H]}\n"
    )
    with pytest.raises(ArgumentError, match="no input that was given tells the size of H"):
        mixc.load(path, backend="cpu")(torch.randn(2, 3))


def test_a_default_has_the_kind_of_its_input():
    mixer = load_text(
        "mixer: kinds\ninputs: {x: {dims: [T], default: 1}, y: [T], n: {dims: [T], dtype: int32, "
        "default: 1}}\nmap: {o: 'where(y > 0, x, x)', m: n + 1}\noutputs: {o: [T], m: [T]}\n"
    )
    found = run(mixer, {"y": torch.randn(4)}, dtype=torch.float32)
    assert found["o"].dtype == torch.float32
    assert not found["m"].is_floating_point()
