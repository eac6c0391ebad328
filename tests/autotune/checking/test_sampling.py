"""Sizes by role and tensors by use."""

import pytest
import torch

from mixc.autotune.checking.footprint import footprint
from mixc.autotune.checking.published import published_cases
from mixc.autotune.checking.sampling import (
    as_strided_view,
    default_sizes,
    sample_inputs,
    verification_cases,
)
from mixc.compiler.language.find import find_spec, library
from mixc.compiler.language.load import load_file, load_text
from mixc.ir.binding import bind_sizes, shape_of
from mixc.ir.mixer import Attention, Mixer, Recurrence
from mixc.ir.names import names_in

GROUPED = """
mixer: grouped
inputs:
  q: [B, H, I, D]
  k: [B, G, J, D]
  v: [B, G, J, E]
  bias: {dims: [H, R], default: 0}
  kept: {dims: [B, J], dtype: bool}
dims:
  I: T
  J: T
  N: (T + block - 1) // block
heads: {G: H}
params:
  block: 128
  window: 512
  base: 10000
  causal: true
let:
  middle: mean(k, J, N=j // block)
attention:
  over: J
  score: sum(q * k, D) + bias[R=i - j] + sum(q * middle[N=j // block], D)
  mask: kept and i - j < window and (j <= i or not causal)
  normalize: softmax
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""
CROSSED = """
mixer: crossed
inputs:
  q: [B, H, I, D]
  k: [B, H, J, D]
  v: [B, H, J, E]
attention:
  over: J
  score: sum(q * k, D)
  normalize: softmax
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""


def cases(text: str) -> dict:
    return {case.name: case for case in verification_cases(load_text(text))}


def test_sizes_go_by_role():
    sizes = default_sizes(load_text(GROUPED))
    assert sizes["I"] == sizes["J"] == sizes["T"] == 77
    assert sizes["H"] == 3 * sizes["G"] > 3
    assert sizes["D"] != sizes["E"]
    assert all(n & (n - 1) for n in (sizes["D"], sizes["E"], sizes["T"]))
    assert sizes["N"] == 1


def test_unrelated_queries_and_keys_differ_in_length():
    for variant in ("standard", "several blocks"):
        sizes = default_sizes(load_text(CROSSED), variant)
        assert sizes["I"] != sizes["J"]
        assert min(sizes["I"], sizes["J"]) > 32
        assert sizes["H"] <= 3


def test_one_kind_of_trouble_per_case():
    found = cases(GROUPED)
    ratios = {c.sizes["H"] // c.sizes["G"] for c in found.values()}
    assert ratios == {1, 3, 8}
    assert found["one token"].sizes["T"] == 1
    assert found["empty batch"].sizes["B"] == 0
    assert found["strided"].strided
    assert found["large scores"].scale > 10
    assert found["absent inputs"].absent == {"bias"}
    assert found["causal turned"].params["causal"] is False
    assert found["several blocks"].sizes["D"] == 64
    assert "no J" not in found
    assert cases(CROSSED)["no J"].sizes["J"] == 0
    assert "eight heads per group" not in cases(CROSSED)


def test_windows_shrink_together_and_derived_sizes_follow():
    found = cases(GROUPED)
    assert found["standard"].params == {}
    assert found["strided"].params == {"block": 8, "window": 32}  # base is no length
    assert found["strided"].sizes["N"] == 10
    kept = verification_cases(load_text(GROUPED), {"window": 100})
    assert {c.params["window"] for c in kept} == {100}


def test_sizes_of_the_spec_are_tried_too():
    text = GROUPED + "check:\n  T: 300\n  D: 16\n"
    case = cases(text)["check"]
    assert (case.sizes["I"], case.sizes["D"], case.sizes["N"]) == (300, 16, 3)


def test_samples_fit_the_spec_and_repeat():
    mixer = load_text(GROUPED)
    for case in verification_cases(mixer):
        made = sample_inputs(mixer, case.sizes, torch.bfloat16, case.seed, absent=case.absent)
        shapes = {n: tuple(t.shape) for n, t in made.items()}
        bound = bind_sizes(mixer, shapes, case.params)
        assert all(case.sizes[dim] == size for dim, size in bound.items())
        assert made["q"].dtype == torch.bfloat16
        assert made["kept"].dtype == torch.bool
        again = sample_inputs(mixer, case.sizes, torch.bfloat16, case.seed)
        assert all(torch.equal(made[name], again[name]) for name in made)
    other = sample_inputs(mixer, case.sizes, torch.bfloat16, case.seed + 1)
    assert not torch.equal(other["q"], made["q"])


def test_leaving_an_input_out_changes_no_other():
    mixer = load_text(GROUPED)
    sizes = default_sizes(mixer)
    assert torch.equal(
        sample_inputs(mixer, sizes, absent=["bias"])["kept"], sample_inputs(mixer, sizes)["kept"]
    )


def test_an_input_may_have_a_dtype_of_its_own():
    mixer = load_text(GROUPED.replace("bias: {dims: [H, R]", "bias: {dtype: float32, dims: [H, R]"))
    made = sample_inputs(mixer, default_sizes(mixer), torch.bfloat16)
    assert made["bias"].dtype == torch.float32
    assert made["q"].dtype == torch.bfloat16


def test_only_one_factor_of_a_score_is_scaled():
    mixer = load_text(GROUPED)
    sizes = default_sizes(mixer)
    plain = sample_inputs(mixer, sizes, torch.float64)
    large = sample_inputs(mixer, sizes, torch.float64, scale=30.0)
    changed = {name for name in plain if not torch.equal(plain[name], large[name])}
    assert changed == {"q"}
    torch.testing.assert_close(large["q"], 30 * plain["q"])


def test_strided_views_are_equal_and_nowhere_contiguous():
    tensor = torch.randn(3, 4, 5)
    view = as_strided_view(tensor)
    assert torch.equal(view, tensor)
    assert view.stride() == (1, 4, 20)
    assert as_strided_view(torch.zeros(0, 3)).shape == (0, 3)
    assert as_strided_view(torch.ones(())).item() == 1


@pytest.mark.parametrize("path", library(), ids=lambda p: p.stem)
def test_every_spec_of_the_library_admits_the_usual_cases(path):
    mixer: Mixer = load_file(path)
    names = {c.name for c in verification_cases(mixer)}
    assert names >= {"standard", "strided", "several blocks", "one token", "empty batch"}
    attentions = [s for s in mixer.stages if isinstance(s, Attention)]
    assert ("large scores" in names) == any(names_in(s.score) for s in attentions)
    assert ("65 rows" in names) == any(isinstance(s, Recurrence) for s in mixer.stages)
    sizes = default_sizes(mixer)
    for output in mixer.outputs:
        assert 0 not in shape_of(output.layout, sizes)


PROMISING = """
mixer: promising
inputs:
  k: {dims: [B, D, T], unit: D}
  a: {dims: [B, T, H], range: [low, 0.75]}
  lively: {dims: [B, T, H], range: [1, inf]}
  log_a: {dims: [B, T, H], range: [-inf, -2]}
  n: {dims: [B, T], dtype: int32, range: [3, 5]}
params: {low: 0.25}
FORM
outputs: {o: [B, T, H]}
"""
FORMS = {
    "map": "map: {o: 'sum(k, D) * a + lively + log_a + n'}",
    "recurrence": """recurrence:
  over: T
  state: {S: [D]}
  step:
    - S = a * exp(log_a) * S + k * n / lively
    - o = sum(S, D)""",
}


@pytest.mark.parametrize("strong", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_values_lie_where_the_spec_says(form, strong):
    mixer = load_text(PROMISING.replace("FORM", FORMS[form]))
    sizes = {"B": 2, "D": 5, "T": 400, "H": 3}
    made = sample_inputs(mixer, sizes, torch.float64, strong=strong)
    torch.testing.assert_close(made["k"].norm(dim=1), torch.ones(2, 400, dtype=torch.float64))
    bounds = {"a": (0.25, 0.75), "lively": (1, 1e3), "log_a": (-1e3, -2), "n": (3, 5)}
    for name, (low, high) in bounds.items():
        assert low <= made[name].min() < made[name].max() <= high, name
    assert made["a"].min() < 0.3
    assert made["a"].max() > 0.7
    assert set(made["n"].flatten().tolist()) == {3, 4, 5}
    extremes = strong and form == "recurrence"
    assert (made["log_a"].min() < -30) == extremes
    assert ((made["a"] == 0.25).sum() > 100) == extremes


def test_a_promised_score_is_not_made_large():
    text = PROMISING.replace("FORM", FORMS["map"]).replace("[B, D, T], unit: D", "[B, D, T]")
    attention = "attention: {over: T, score: 'sum(k, D) * a', output: {o: n}}"
    for promise, scaled in (("", True), (", range: [-1, 1]", False)):
        head = text.replace("[B, D, T]}", f"[B, D, T]{promise}}}")
        spec = head.replace(FORMS["map"], attention).replace("{o: [B, T, H]}", "{o: [B, H]}")
        mixer = load_text(spec)
        sizes = {"B": 2, "D": 5, "T": 40, "H": 3}
        made = sample_inputs(mixer, sizes, torch.float64, scale=30.0)
        assert (made["k"].abs().max() > 20) == scaled


def test_a_table_has_the_rows_that_are_read():
    spec = """
mixer: pairs
inputs: {x: [B, S, H, T, E], bias: [R, E], w: [N]}
dims: DIMS
map:
  o: (x[S=0, H=2 * n] - w * x[S=1, H=2 * n + 1]) + bias[R=t // 4]
outputs: {o: [B, N, T, E]}
"""
    sizes = default_sizes(load_text(spec.replace("DIMS", "{}")))
    assert (sizes["S"], sizes["H"]) == (2, 2 * sizes["N"])
    assert sizes["R"] == 13  # read at positions: with some outside
    fixed = default_sizes(load_text(spec.replace("DIMS", "{S: 3, N: H // 2}")))
    assert (fixed["S"], fixed["N"]) == (3, fixed["H"] // 2)
    assert 1 <= fixed["N"] <= 4


def test_a_dim_that_sizes_are_made_from_is_no_table():
    """Based reads x[D=m - 1], m over the features that D makes: D is as long as ever."""
    (based,) = (load_file(path) for path in library() if path.stem == "based")
    assert default_sizes(based)["D"] > 10


def test_lengths_that_one_axis_counts_together_are_short():
    mixer = load_file(find_spec("window_2d"))
    for case in verification_cases(mixer):
        sizes = case.sizes
        assert sizes["N_P"] == sizes["N"] * sizes["P"] <= 1024
        assert (sizes["N"], sizes["P"]) == (sizes["Y"], sizes["X"])
    large = {**default_sizes(mixer), "N": 200, "P": 150, "Y": 200, "X": 150}
    found = footprint(mixer, {dim: size for dim, size in large.items() if dim != "N_P"})
    assert set(found.largest) >= {"Y", "X", "N_P"}
    assert found.largest_bytes >= 8 * 30_000**2


@pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)
def test_every_spec_is_tried_at_lengths_that_people_use(path):
    """Convolutions and maps have no form that tells which of their axes are long."""
    mixer = load_file(path)
    few = [case.sizes for case in verification_cases(mixer) if case.name == "one token"]
    assert {sizes.get("T", 1) for sizes in few} == {1}
    many = next(case.sizes for case in published_cases(mixer) if case.name.endswith(" rows"))
    # The reference finds no room for more: whole columns and rows of a picture, 64 heads of events.
    assert max(many.values()) > (400 if path.stem in ("combiner_axial", "emllm") else 800)


@pytest.mark.parametrize("name", ["short_conv", "sgconv", "hyena", "dual", "extractor", "lru"])
def test_channels_that_nothing_sums_are_wide(name):
    mixer = load_file(find_spec(name))
    channels = mixer.outputs[0].dims[-1]
    assert {case.sizes[channels] for case in published_cases(mixer)} & {80, 96, 128}


@pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)
def test_cases_of_published_sizes_find_room(path):
    mixer = load_file(path)
    cases = published_cases(mixer)
    assert cases
    assert all(footprint(mixer, case.sizes).total_bytes < 8 << 30 for case in cases)


def test_a_picture_is_made_smaller_until_it_finds_room():
    mixer = load_file(find_spec("combiner_axial"))
    (rows,) = (case for case in published_cases(mixer) if "rows" in case.name)
    assert rows.name == "500 rows"
    assert (rows.sizes["Y"], rows.sizes["X"]) == (500, 251)
