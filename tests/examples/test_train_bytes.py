"""The example that trains a byte model: a few steps, both ways, for several mixers."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = ROOT / "examples" / "train_bytes.py"
    spec = importlib.util.spec_from_file_location("train_bytes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_bytes"] = module
    spec.loader.exec_module(module)
    return module


def small(*arguments: object) -> list[str]:
    sizes = ["--steps", 24, "--batch", 2, "--length", 40, "--width", 16, "--every", 2]
    return [str(word) for word in (*sizes, *arguments)]


def test_both_models_learn_alike_and_are_drawn(example, tmp_path, capsys):
    picture = tmp_path / "curves.png"
    curves = example.main(small("--mixer", "causal", "gla", "--png", picture))
    assert len(curves.kernels) == 24
    assert curves.kernels[-1] < curves.kernels[0]
    assert 0 < curves.apart < 1e-4
    said = capsys.readouterr().out
    assert "step    0  loss" in said
    assert "tokens/s by kernels" in said
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_twins_by_hand_are_the_mixers(example):
    torch.manual_seed(0)
    hidden = torch.randn(2, 40, 16)
    for name in example.TWINS:
        mix = example.Mix(name, 16, 2, 40)
        ours, twin = (mix(hidden, run) for run in (example.by_kernels, example.by_torch))
        torch.testing.assert_close(ours, twin, rtol=1e-5, atol=1e-6)


def test_a_mixer_that_is_no_function_of_the_text_is_refused(example):
    with pytest.raises(SystemExit, match="tree reads enter, which is no function of the text"):
        example.Mix("tree", 16, 2, 40)


def test_the_text_is_prose(example):
    found = example.text(50_000)
    assert len(found) == 50_000
    assert b"mixc" in found
