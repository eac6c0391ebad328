"""What goes by torch on a CPU, and how a user gets to know."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import mixc
from mixc.cli import commands

WITHOUT_KERNELS = """
mixer: pooled
inputs: {k: [J], v: [J, E]}
attention: {over: J, score: k, output: {o: v}}
outputs: {o: [E]}
"""


def test_a_training_step_by_torch_is_said_once() -> None:
    """A kernel would hold all samples of a batch, for the gradient of what the memory is asked."""
    x, ask_read, ask_write = torch.rand(2, 5, 3, 4), torch.rand(2, 4), torch.rand(6, 4)
    w1, w2 = torch.rand(4, 8), torch.rand(8, 4)
    ask_read.requires_grad_()
    given = {"x": x, "ask_read": ask_read, "ask_write": ask_write, "W1": w1, "W2": w2}
    machine = mixc.load("ttm")
    with pytest.warns(mixc.MixcWarning, match=r"ttm runs by torch.*hold the axis") as told:
        machine(**given).y.sum().backward()
    assert [w.filename for w in told] == [__file__]
    assert "torch.no_grad()" in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        machine(**given)
        mixc.load("ttm")(**given)
    assert machine.backend_for("cpu") == "cpu"
    assert machine.backend_for("cpu", gradients=True) == "reference"
    assert mixc.load("hgrn").backend_for("cpu", gradients=True) == "cpu"


def test_show_prints_the_backward_pass() -> None:
    shown = CliRunner().invoke(commands, ["show", "causal", "--grad"]).output
    assert "Kept from the forward pass: o, o_lse" in shown
    assert (
        "d_q[B, H, I, D] = sum(weights * ((sum(d_o * v[G=h // (H // G)], E) - delta) * scale"
        in shown
    )


def test_a_spec_without_kernels_is_said_wherever_one_looks(tmp_path: Path) -> None:
    path = tmp_path / "pooled.yaml"
    path.write_text(WITHOUT_KERNELS)
    mix, k, v = mixc.load(path), torch.randn(9), torch.randn(9, 4)
    assert mix.backend_for("cpu") == "reference"
    with pytest.warns(mixc.MixcWarning, match="pooled runs by torch.*has no query axis"):
        found = mix(k, v)
    torch.testing.assert_close(found, k.softmax(0) @ v)
    shown = CliRunner().invoke(commands, ["show", str(path)]).output
    assert "has no query axis" in shown
    assert "so a CPU runs this by torch" in shown


SOLVED = """
mixer: solved
inputs: {A: [B, I, J], v: [B, I]}
dims: {I: T, J: T}
map: {o: "solve(A, v, I=J)"}
outputs: {o: [B, J]}
"""


def test_what_has_no_kernels_is_not_said_to_be_untuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    monkeypatch.setattr("mixc.autotune.results.choice.say_once", said.append)
    (path := tmp_path / "solved.yaml").write_text(SOLVED)
    A, v = torch.eye(3)[None] * 2, torch.ones(1, 3)
    with pytest.warns(mixc.MixcWarning, match="solved runs by torch.*`solve` along I"):
        torch.testing.assert_close(mixc.load(path)(A, v), v / 2)
    assert not said
