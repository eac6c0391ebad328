"""Tensors that do not fit each other are refused, however a mixer is called.

Over the library: each axis of each input in turn is one longer than the others say. Then a size
that is found has to agree with all that the spec declares, or the call is refused: by what
explains it, by the quick reading of sizes that every backend launches by, and by the function of
an emitted file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.backends.names import plain_names
from mixc.backends.prepared import size_reader
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.names import TAKEN
from mixc.backends.triton.run import import_source
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.pipeline import lower
from mixc.ir.binding import bind_sizes, param_values, shape_of
from mixc.ir.errors import ArgumentError
from mixc.ir.host import evaluate_host
from mixc.ir.mixer import Mixer
from mixc.ir.roles import feature_dims

PAIRED = """
mixer: paired
inputs: {x: [B, I, C], w: [B, P, E], y: [B, N, M]}
dims: {I: T, P: T, N: (T + 1) // 2}
map: {z: "sum(x, C) * w[P=i] * sum(y[N=i // 2], M)"}
outputs: {z: [B, I, E]}
"""
SMALL = Proportions(lengths=(24,), features=(8,), ratio=1, groups=2, batch=(2, 2))
Shapes = Mapping[str, tuple[int, ...]]


def longer(mixer: Mixer, shapes: Shapes) -> Iterator[tuple[str, int, Shapes]]:
    """Each axis in turn, and the shapes where it is one longer."""
    for entry in mixer.inputs:
        for axis in range(len(entry.layout)):
            shape = list(shapes[entry.name])
            shape[axis] += 1
            yield entry.name, axis, {**shapes, entry.name: tuple(shape)}


def agrees(mixer: Mixer, sizes: Mapping[str, int], shapes: Shapes) -> bool:
    """Whether sizes are what shapes and the spec's dims and heads say."""
    for entry in mixer.inputs:
        made = tuple(prod(sizes[dim] for dim in product) for product in entry.layout)
        if made != tuple(shapes[entry.name]):
            return False
    params = param_values(mixer, sizes)
    return (
        all(sizes[dim] == sizes.get(s, sizes[dim]) for dim, s in mixer.sequences)
        and all(sizes[dim] == evaluate_host(v, sizes, params) for dim, v in mixer.sizes)
        and all(sizes[large] % max(sizes[small], 1) == 0 for small, large in mixer.heads)
    )


@pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)
def test_an_axis_that_is_longer_fits_or_is_refused(path: Path) -> None:
    mixer = load_file(path)
    shapes = small_shapes(mixer)
    reader = size_reader(mixer, tuple(shapes))
    for name, axis, changed in longer(mixer, shapes):
        tensors = tuple(torch.empty(shape) for shape in changed.values())
        try:
            sizes = bind_sizes(mixer, changed)
        except ArgumentError:
            assert reader.read(tensors) is None, (name, axis)
        else:
            assert agrees(mixer, sizes, changed), (name, axis, sizes)


def small_shapes(mixer: Mixer) -> dict[str, tuple[int, ...]]:
    sizes = default_sizes(mixer, SMALL, {})
    return {entry.name: shape_of(entry.layout, sizes) for entry in mixer.inputs}


LAUNCHED = [
    path for path in library() if path.parent.name in ("attention", "selection", "positions")
]


@pytest.mark.parametrize("path", LAUNCHED, ids=lambda path: path.stem)
def test_an_emitted_file_refuses_what_does_not_fit(path: Path) -> None:
    mixer = load_file(path)
    shapes = small_shapes(mixer)
    function, dtypes = emitted(mixer, shapes)
    for _, _, changed in longer(mixer, shapes):
        try:
            bind_sizes(mixer, changed)
        except ArgumentError:
            given = [torch.zeros(shape, dtype=dtypes[n]) for n, shape in changed.items()]
            with pytest.raises(ValueError, match=r"expected|divide"):
                function(*given)


def test_an_emitted_file_names_both_tensors_and_their_axes() -> None:
    mixer = load_text(PAIRED)
    function, _ = emitted(mixer, {"x": (2, 5, 4), "w": (2, 5, 3), "y": (2, 3, 6)})
    x, w, y = torch.zeros(2, 5, 4), torch.zeros(2, 7, 3), torch.zeros(2, 3, 6)
    with pytest.raises(ValueError, match="w: expected P, axis 1, as long as I, axis 1 of x: 5"):
        function(x, w, y)
    words = re.escape("y, axis 1: expected N = (T + 1) // 2, got 4")
    with pytest.raises(ValueError, match=words):
        function(x, w[:, :5], torch.zeros(2, 4, 6))


def emitted(mixer: Mixer, shapes: Shapes) -> tuple[Callable[..., Any], dict[str, torch.dtype]]:
    """The function of the emitted file, and what tensors it takes."""
    sizes = bind_sizes(mixer, shapes)
    plan = lower(mixer, {d: sizes[d] for d in feature_dims(mixer)}, "float32")
    module = import_source(emit_module(plan, wide_dots=True), mixer.name)
    name = plain_names(plan, TAKEN).get(mixer.name, mixer.name)
    dtypes = {i.name: torch.float32 for i in mixer.inputs}
    dtypes |= {b.name: getattr(torch, b.dtype.value) for b in plan.buffers if b.role == "input"}
    return getattr(module, name), dtypes
