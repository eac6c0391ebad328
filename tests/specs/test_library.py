"""What holds for every spec of the library, found by discovery."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from mixc.autotune.checking.sampling import default_sizes, sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.ir.binding import shape_of

SPECS = pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)


def test_the_library_is_there_and_names_are_unique() -> None:
    counts = Counter(path.stem for path in library())
    assert len(counts) > 30
    assert [name for name, count in counts.items() if count > 1] == []


@SPECS
def test_a_spec_says_what_it_is(path: Path) -> None:
    mixer = load_file(path)
    assert mixer.name == path.stem
    assert mixer.about.strip()
    assert mixer.source.strip()


@SPECS
@pytest.mark.parametrize("variant", ["one token", "empty batch", "one head per group"])
def test_outputs_have_their_shapes_and_gradients_are_finite(path: Path, variant: str) -> None:
    mixer = load_file(path)
    sizes = default_sizes(mixer, variant)
    inputs = sample_inputs(mixer, sizes, torch.float64)
    for declared in mixer.inputs:
        inputs[declared.name].requires_grad_(inputs[declared.name].is_floating_point())
    results = run(mixer, inputs)
    for output in mixer.outputs:
        result = results[output.name]
        assert tuple(result.shape) == shape_of(output.layout, sizes)
        assert not result.isnan().any()
    sum(r[r.isfinite()].square().sum() for r in results.values()).backward()
    assert all(x.grad is None or x.grad.isfinite().all() for x in inputs.values())
