"""Sizes solved from shapes, params on the host, and errors in the spec's own names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixc.compiler.language.load import load_text
from mixc.ir.binding import bind_sizes, expected_layout_text, param_values, shape_of
from mixc.ir.errors import ArgumentError

GROUPED = """
mixer: grouped
inputs:
  q: [B, H, I, D]
  k: [B, G, J, D]
  v: [B, G, J, E]
  slope: {dims: [H], default: 0}
dims: {I: T, J: T}
heads: {G: H}
params:
  window: 16
  half: window // 2
  scale: D ** -0.5
  causal: true
attention:
  over: J
  score: scale * sum(q * k, D) - slope * (i - j)
  mask: i - j < half and (j <= i or not causal)
  normalize: softmax
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""
SHAPES = {"q": (2, 6, 5, 8), "k": (2, 3, 5, 8), "v": (2, 3, 5, 7)}

BLOCKS = """
mixer: blocks
inputs:
  x: [B, T, G*R, D]
  y: [G, 1, D]
  rows: {dims: [B, N], default: 1}
dims:
  N: (T + block - 1) // block
params: {block: 4}
map:
  o: x * y * at(rows, N=t // block)
outputs: {o: [T, B*G, R, D]}
"""


def refused(text, shapes):
    with pytest.raises(ArgumentError) as caught:
        bind_sizes(load_text(text), shapes)
    return str(caught.value)


def test_every_dim_gets_its_size():
    mixer = load_text(GROUPED)
    sizes = bind_sizes(mixer, {**SHAPES, "slope": (6,)})
    assert sizes == {"B": 2, "H": 6, "I": 5, "D": 8, "G": 3, "J": 5, "E": 7, "T": 5}
    assert shape_of(mixer.outputs[0].layout, sizes) == (2, 6, 5, 7)


def test_products_and_derived_sizes():
    mixer = load_text(BLOCKS)
    sizes = bind_sizes(mixer, {"x": (2, 9, 6, 5), "y": (3, 1, 5), "rows": (2, 3)})
    assert sizes["R"] == 2
    assert sizes["N"] == 3
    assert shape_of(mixer.outputs[0].layout, sizes) == (9, 6, 2, 5)
    assert bind_sizes(mixer, {"x": (2, 9, 6, 5), "y": (3, 1, 5)}, {"block": 2})["N"] == 5


@given(
    sizes=st.fixed_dictionaries({dim: st.integers(1, 7) for dim in "BTGRD"}),
    order=st.permutations(["x", "y", "rows"]),
)
def test_solving_recovers_the_sizes_in_any_order(sizes, order):
    mixer = load_text(BLOCKS)
    sizes = {**sizes, "N": -(-sizes["T"] // 4)}
    shapes = {name: shape_of(mixer.input(name).layout, sizes) for name in order}
    assert bind_sizes(mixer, shapes) == sizes


@given(
    sizes=st.fixed_dictionaries({dim: st.integers(dim == "G", 5) for dim in "BGTDE"}),
    ratio=st.integers(1, 4),
    name=st.sampled_from("qkv"),
    axis=st.integers(0, 3),
    more=st.integers(1, 3),
)
def test_one_wrong_axis_is_refused_or_changes_a_free_dim(sizes, ratio, name, axis, more):
    mixer = load_text(GROUPED)
    sizes = {**sizes, "H": ratio * sizes["G"], "I": sizes["T"], "J": sizes["T"]}
    shapes = {n: shape_of(mixer.input(n).layout, sizes) for n in "qkv"}
    assert bind_sizes(mixer, shapes) == sizes
    wrong = list(shapes[name])
    wrong[axis] += more
    shapes[name] = tuple(wrong)
    dim = mixer.input(name).dims[axis]
    fits = dim == "E" or (dim == "H" and wrong[1] % sizes["G"] == 0)
    if fits:
        assert bind_sizes(mixer, shapes)[dim] == sizes[dim] + more
    else:
        with pytest.raises(ArgumentError):
            bind_sizes(mixer, shapes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": (2, 3, 6, 7)}, "v: expected [B, G, J, E] with J = 5 as I in q, got [2, 3, 6, 7]"),
        ({"v": (2, 2, 5, 7)}, "v: expected [B, G, J, E] with G = 3 as in k, got [2, 2, 5, 7]: "),
        ({"k": (2, 3, 5, 9)}, "k: expected [B, G, J, D] with D = 8 as in q, got [2, 3, 5, 9]: D"),
        ({"v": (2, 3, 5)}, "v: expected [B, G, J, E], a tensor of 4 axes, got [2, 3, 5], a"),
        ({"q": (2, 7, 5, 8)}, "heads: G must divide H, got G = 3 as in k and H = 7 as in q"),
        ({"slop": (6,)}, "grouped has no input 'slop'; did you mean 'slope'?"),
        ({"w": (6,)}, "grouped has no input 'w'; there is q, k, v, slope"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    assert message in refused(GROUPED, {**SHAPES, **change})


def test_missing_inputs_are_listed_with_their_layouts():
    shapes = {"q": SHAPES["q"]}
    assert "missing input k: [B, G, J, D], v: [B, G, J, E]" in refused(GROUPED, shapes)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x": (2, 9, 8, 5), "y": (3, 1, 5)}, "G = 3 as in y, got [2, 9, 8, 5]: 3 does not div"),
        ({"x": (2, 9, 6, 5), "y": (3, 2, 5)}, "got [3, 2, 5]: the axis of 1 is 2"),
        ({"x": (2, 9, 6, 5), "y": (3, 1, 6)}, "y: expected [G, 1, D] with D = 5 as in x"),
        ({"x": (2, 9, 6, 5), "y": (3, 1, 5), "rows": (2, 4)}, "N = 4 as in rows, but dims has N"),
    ],
)
def test_products_and_derived_sizes_that_clash(shapes, message):
    assert message in refused(BLOCKS, shapes)


def test_factors_that_nothing_tells_apart():
    text = BLOCKS.replace("y: [G, 1, D]", "y: {dims: [G, 1, D], default: 1}")
    message = refused(text, {"x": (2, 9, 6, 5)})
    assert "x: expected [B, T, G*R, D], got [2, 9, 6, 5]: G*R = 6 does not tell G and R" in message


def test_a_dim_that_only_an_absent_input_has():
    text = """
mixer: wide
inputs:
  x: [B, T]
  w: {dims: [B, C], default: 1}
map: {o: x * w}
outputs: {o: [B, T, C]}
"""
    assert "no input that was given tells the size of C; it would come from w" in refused(
        text, {"x": (2, 3)}
    )


def test_an_axis_product_with_an_empty_batch():
    text = """
mixer: flat
inputs:
  x: [B*H, T]
  y: [B, H]
map: {o: x * y}
outputs: {o: [B, H, T]}
"""
    mixer = load_text(text)
    assert bind_sizes(mixer, {"x": (0, 5), "y": (0, 3)}) == {"B": 0, "H": 3, "T": 5}


def test_params_follow_each_other_and_the_sizes():
    mixer = load_text(GROUPED)
    sizes = bind_sizes(mixer, SHAPES)
    assert param_values(mixer, sizes) == {
        "window": 16,
        "half": 8,
        "scale": 8**-0.5,
        "causal": True,
    }
    changed = param_values(mixer, sizes, {"window": 7, "scale": 2})
    assert changed["half"] == 3
    assert isinstance(changed["scale"], float)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"windw": 3}, "grouped has no param 'windw'; did you mean 'window'?"),
        ({"window": 3.5}, "window: expected an integer, got 3.5"),
        ({"window": True}, "window: expected an integer, got True"),
        ({"scale": "1"}, "scale: expected a number, got '1'"),
        ({"causal": 2}, "causal: expected true or false, got 2"),
    ],
)
def test_params_that_do_not_fit_are_named(override, message):
    mixer = load_text(GROUPED)
    with pytest.raises(ArgumentError, match=re.escape(message)):
        param_values(mixer, bind_sizes(mixer, SHAPES), override)


def test_layout_text():
    mixer = load_text(BLOCKS)
    assert expected_layout_text(mixer.input("x")) == "[B, T, G*R, D]"
    assert expected_layout_text(mixer.input("y").layout) == "[G, 1, D]"
