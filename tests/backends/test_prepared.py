"""Python made once for a mixer against the definitions that it stands for."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.autotune.checking.proportions import default_sizes, resized
from mixc.backends.prepared import numbers_of, size_reader
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file, load_text
from mixc.ir.binding import bind_sizes, evaluate_host, param_values, shape_of
from mixc.ir.errors import ArgumentError
from mixc.ir.mixer import Mixer

SQUARE = """
mixer: square
inputs: {x: [B, D*E], y: [E, 1], z: [N, G], w: [H]}
dims: {N: E // block + 1}
params: {block: 3}
heads: {G: H}
map: {o: "x + sum(z, N) * sum(w, H)"}
outputs: {o: [B, D, E, G]}
"""


def read(mixer: Mixer, shapes: dict[str, tuple[int, ...]]) -> dict[str, int] | None:
    reader = size_reader(mixer, tuple(shapes))
    sizes = reader.read(tuple(torch.empty(shape, device="meta") for shape in shapes.values()))
    return None if sizes is None else dict(zip(reader.dims, sizes, strict=True))


def bound(mixer: Mixer, shapes: dict[str, tuple[int, ...]]) -> dict[str, int] | None:
    try:
        return bind_sizes(mixer, shapes)
    except ArgumentError:
        return None


def test_sizes_of_every_spec_are_those_of_the_definition() -> None:
    for path in library():
        mixer = load_file(path)
        sizes = resized(mixer, default_sizes(mixer), {}, {})
        shapes = {i.name: shape_of(i.layout, sizes) for i in mixer.inputs}
        assert read(mixer, shapes) == bound(mixer, shapes), path.stem


LIBRARY = [load_file(path) for path in library()[::3]] + [load_text(SQUARE)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_shapes_that_do_not_fit_are_left_to_the_definition(data: st.DataObject) -> None:
    """One axis of one input is changed: there is the answer of ``bind_sizes``, or none."""
    mixer = data.draw(st.sampled_from(LIBRARY))
    sizes = resized(mixer, default_sizes(mixer), {}, {})
    shapes = {i.name: list(shape_of(i.layout, sizes)) for i in mixer.inputs}
    name = data.draw(st.sampled_from([n for n, shape in shapes.items() if shape]))
    axis = data.draw(st.integers(0, len(shapes[name]) - 1))
    shapes[name][axis] = data.draw(st.integers(0, 3 * shapes[name][axis] + 1))
    given_shapes = {n: tuple(shape) for n, shape in shapes.items()}
    expected, found = bound(mixer, given_shapes), read(mixer, given_shapes)
    assert found in (None, expected)
    if expected is not None and 0 not in expected.values():
        assert found == expected


def test_numbers_are_those_of_the_definition() -> None:
    for path in library():
        mixer = load_file(path)
        sizes = resized(mixer, default_sizes(mixer), {}, {})
        values = param_values(mixer, sizes)
        exprs = [param.value for param in mixer.params]
        expected = tuple(evaluate_host(expr, sizes, values) for expr in exprs)
        assert numbers_of(mixer, tuple(sizes), exprs)(tuple(sizes.values())) == expected
