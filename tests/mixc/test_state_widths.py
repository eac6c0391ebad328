"""``dims: {P: D}`` of a recurrent matrix: P is as long as D, and kernels hold both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mixc.api import load
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.errors import ArgumentError

SPEC = """
mixer: mixing
inputs: {x: [B, T, D], R: [D, P], h0: {dims: [B, D], default: 0}}
dims: {P: D}
recurrence:
  over: T
  state: {h: [D]}
  initial: {h: h0}
  step:
    - h = tanh(x + sum(R * READ, P))
    - y = h
outputs: {y: [B, T, D]}
"""


@pytest.mark.parametrize("read", ["h[D=p]", "h[p]"])
def test_a_kernel_mixes_a_state_along_an_axis_called_by_two_names(
    read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "mixing.yaml"
    path.write_text(SPEC.replace("READ", read))
    mixer = load(path, backend="cpu")  # no way by torch
    for rows, width in ((1, 64), (17, 64), (33, 20)):
        x, h0 = torch.randn(2, rows, width), torch.randn(2, width)
        r = torch.randn(width, width) / width**0.5
        state, expected = h0.double(), []
        for row in x.double().unbind(1):
            state = torch.tanh(row + state @ r.double().T)
            expected.append(state)
        found = mixer(x, r, h0=h0)
        torch.testing.assert_close(found.double(), torch.stack(expected, 1), rtol=0, atol=2e-6)
    with pytest.raises(ArgumentError, match="P"):
        mixer(x, torch.randn(width, width + 1))


def test_channels_that_no_row_mixes_stay_what_dims_says() -> None:
    by_entry = SPEC.replace("tanh(x + sum(R * READ, P))", "tanh(x + h)").replace(
        "- y = h", "- y = h + sum(R, P)"
    )
    assert load_text(SPEC.replace("READ", "h[p]")).sequence("D") is None
    assert load_text(by_entry).sequence("P") == "D"


def test_channels_may_be_chosen_among() -> None:
    """A selection along D made P and D positions of a sequence, along which no kernel mixes."""
    text = SPEC.replace("READ", "h[p]").replace("recurrence:", "stages:\n- recurrence:")
    head, step = text.split("- recurrence:")
    body = step.partition("outputs")[0].replace("\n  ", "\n    ")
    chosen = "- select: {over: D, score: h0, keep: {top: 3}}\n- map: {z: 'where(selected, y, 0)'}\n"
    mixer = load_text(f"{head}- recurrence:{body}{chosen}outputs: {{z: [B, T, D]}}\n")
    assert mixer.sequence("P") is None
    assert lower(mixer, {"D": 64, "P": 64}, "float32").kernels
