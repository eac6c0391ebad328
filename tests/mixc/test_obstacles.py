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


def test_a_training_step_is_said_once() -> None:
    mix = mixc.load("hgrn")
    x = torch.linspace(-1, 0, 80).view(2, 5, 8).requires_grad_()
    with pytest.warns(mixc.MixcWarning, match=r"hgrn runs by torch.*x requires a gradient") as told:
        mix(x, x).o.sum().backward()
    assert [w.filename for w in told] == [__file__]
    assert "torch.no_grad()" in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mix(x, x)
        mixc.load("hgrn")(x, x)
    assert mix.backend_for("cpu") == "cpu"
    assert mix.backend_for("cpu", gradients=True) == "reference"


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
