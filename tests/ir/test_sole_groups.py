"""As many groups as heads: the same numbers, and no sum over the heads of a group."""

from __future__ import annotations

import pytest
import torch

from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.expression import Kind, Ref
from mixc.ir.mixer import Mixer
from mixc.ir.sole_groups import with_sole_groups
from mixc.ir.task import PointwiseTask
from mixc.ir.verify_mixer import verify_mixer

SIZES = {"B": 2, "T": 21, "I": 21, "J": 21, "H": 3, "G": 3, "D": 16, "E": 16, "P": 16, "N": 16}


def backward(spec: str) -> Mixer:
    mixer = load_file(find_spec(spec))
    return differentiate(mixer, tuple(i.name for i in mixer.inputs if i.kind is Kind.REAL)).backward


@pytest.mark.parametrize("spec", ["mamba2", "gated_delta", "causal", "alibi_window"])
def test_gradients_are_the_same_without_groups(spec: str) -> None:
    mixer = backward(spec)
    made = with_sole_groups(mixer, SIZES)
    verify_mixer(made)
    assert mixer.heads == (("G", "H"),)
    assert made.heads == ()
    assert all("G" not in entry.dims for entry in (*made.inputs, *made.outputs))
    inputs = sample_inputs(mixer, SIZES, torch.float64, seed=3)
    wanted, found = run(mixer, inputs), run(made, inputs)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12)


def test_groups_of_several_heads_stay_and_so_does_what_sums_over_none() -> None:
    mixer, forward = backward("mamba2"), load_file(find_spec("mamba2"))
    assert with_sole_groups(mixer, {**SIZES, "H": 6}) is mixer
    assert with_sole_groups(forward, SIZES) is forward


@pytest.mark.parametrize("value", ["sum(x, H, G=h // (H // G)) * y", "sum(x * (h == g), H)"])
def test_a_value_of_heads_and_groups_keeps_both(value: str) -> None:
    text = f"""
mixer: both
inputs: {{x: [B, H, D], z: [B, H, D], y: [B, G, D], w: [H, G]}}
heads: {{G: H}}
map: {{s: "{value} + 0 * sum(w, H)", o: z * s}}
outputs: {{s: [B, G, D], o: [B, H, D]}}
"""
    mixer = load_text(text, "both.yaml")
    assert with_sole_groups(mixer, SIZES) is mixer


def test_kernels_are_found_for_either_number_of_groups() -> None:
    mixer = backward("mamba2")
    runner = CpuRunner(mixer, lower)
    for groups in (3, 1, 3):
        inputs = sample_inputs(mixer, {**SIZES, "G": groups}, torch.float32, seed=3)
        wanted, found = run(mixer, inputs), runner(inputs)
        for name, value in wanted.items():
            torch.testing.assert_close(found[name].double(), value, rtol=1e-3, atol=1e-3)
    plans = {len(module.mixer.heads): module.plan for module in runner.modules.values()}
    assert {*plans} == {0, 1}
    copies = [t.value for t in plans[0].tasks if isinstance(t, PointwiseTask)]
    assert not {v.name for v in copies if isinstance(v, Ref)} & {"d_S_query", "d_S_column"}
