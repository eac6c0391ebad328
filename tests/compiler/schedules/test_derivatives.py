"""Backward passes of the library as tile programs, executed exactly, against the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.runtime.overrides import override

from ..plans import assert_equal
from .test_library import cases

# Of each kind some; reads of other features (rotations), of tables and of sinks among them.
NAMES = (
    "sink rope rope_interleaved streaming t5 alibi_window relu simple_gla gla gated_delta rwkv7 "
    "mamba2 hgrn"
).split()
SPECS = [path for path in library() if path.stem in NAMES]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_plans_of_derivatives_do_what_the_reference_does(path: Path) -> None:
    mixer = load_file(path)
    case = cases(mixer)[0]
    runtime = {p.name for p in mixer.params if p.runtime}
    mixer = override(mixer, {n: v for n, v in case.params.items() if n not in runtime})
    given = {n: v for n, v in case.params.items() if n in runtime}
    inputs = sample_inputs(mixer, case.sizes, torch.float64, case.seed, params=given)
    derivative = differentiate(mixer)
    forward = run(derivative.forward, inputs, given)
    generator = torch.Generator().manual_seed(0)
    known: dict[str, Tensor] = {**inputs, **{n: forward[n] for n in derivative.kept}}
    for output, name in derivative.cotangents.items():
        like = forward[output]
        drawn = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        known[name] = torch.where(like.isfinite(), drawn, 0)
    tensors = {i.name: known[i.name] for i in derivative.backward.inputs}
    assert_equal(derivative.backward, tensors, given, block=8)
