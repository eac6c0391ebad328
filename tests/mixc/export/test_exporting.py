"""Exported files: without mixc they check themselves, compile, and read well."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import mixc
from mixc.backends.triton.cross_compile import cross_compile
from mixc.cli import commands
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.export.exported_calls import _words
from mixc.export.exporting import Exported, export
from mixc.ir.errors import ArgumentError
from mixc.ir.targets import parse_target

ROOT = Path(__file__).resolve().parents[3]
# A sample of the forms: an attention, a mask with a bias, chunks, a delta rule, a scan, a map, and
# one input, of which transforms alone are made.
POINTWISE = """
mixer: gated_pair
inputs: {x: [B, T, D], gate: [B, T, D], bias: [D], keep: {dims: [B, T], dtype: bool}}
map:
  o: where(keep, silu(gate + bias) * x, x)
outputs: {o: [B, T, D]}
"""
SMALL = {"D": 16, "E": 16}
SAMPLE = {
    "causal": SMALL,
    "alibi_window": SMALL,
    "gla": SMALL,
    "gated_delta": SMALL,
    "hgrn": {"C": 16},
    "gated_pair": {"D": 16},
    "fnet": {"C": 40},
}
# Without mixc, which a finder refuses to import.
ALONE = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mixc":
            raise ImportError("mixc is blocked")

sys.meta_path.insert(0, Blocked())
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def exported(name: str, dtype: str = "float32") -> Exported:
    mixer = load_text(POINTWISE) if name == "gated_pair" else load_file(find_spec(name))
    return export(mixer, SAMPLE[name], dtype)


def self_test(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", ALONE, str(path)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def lint(folder: Path, only: str = "") -> str:
    """What ruff has to say about files under the repository's rules."""
    said = ""
    for what in (["check", "-q"], ["format", "--diff", "-q"]):
        if only not in what[0]:
            continue
        config = ["--no-cache", "--config", str(ROOT / "pyproject.toml"), str(folder)]
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *what, *config], capture_output=True, text=True
        )
        said += done.stdout + done.stderr
    return said


def test_the_names_of_results_lie_as_a_formatter_lays_them(tmp_path):
    for count in range(12, 40):
        words = " ".join(f"n{'x' * (n % 5)}" for n in range(count))
        body = "\n".join(_words("names", words))
        text = f"class Case:\n    def names(self):\n{body}\n        return names\n"
        known: dict[str, type] = {}
        exec(text, known)
        assert known["Case"]().names() == words.split()
        (tmp_path / f"names_{count}.py").write_text(text)
    assert "names_" not in lint(tmp_path, "format")


@pytest.mark.parametrize("name", SAMPLE)
def test_a_file_checks_itself_without_mixc(name, tmp_path):
    made = exported(name)
    assert made.without_gradient is None
    path = tmp_path / f"{name}.py"
    path.write_text(made.source)
    assert not re.search(r"^ *(import|from) .*mixc", made.source, re.MULTILINE)
    done = self_test(path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " d_" in done.stdout
    assert "WRONG" not in done.stdout
    assert lint(tmp_path) == ""


def test_a_bfloat16_file_checks_itself_in_the_interpreter(tmp_path):
    path = tmp_path / "causal.py"
    path.write_text(exported("causal", "bfloat16").source)
    done = self_test(path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_kernel_is_found(tmp_path):
    path = tmp_path / "causal.py"
    source = exported("causal").source
    right = "weight_scaled = tl.where(mask, weight * (d_o_v - delta_tile[None, :]), 0.0) * scale"
    assert right in source
    path.write_text(source.replace(right, right.replace("* scale", "* 1.01 * scale")))
    done = self_test(path)
    assert done.returncode == 1
    assert {
        line.split("}")[1].split(":")[0] for line in done.stdout.splitlines() if "WRONG" in line
    } == {" d_k"}


@pytest.mark.parametrize("name", ["causal", "gated_delta"])
def test_the_kernels_of_a_file_compile_without_a_gpu(name):
    made = exported(name, "bfloat16")
    reports = cross_compile(made.source, made.signatures(), [parse_target("cuda:90")])
    assert len(reports) == len(made.signatures()) > 1
    assert [report.error for report in reports] == [None] * len(reports)


def test_a_file_is_the_same_every_time():
    assert exported("gla").source == exported("gla").source


def test_forward_only_says_why_there_is_no_backward_pass(tmp_path):
    source = mixc.export_source("causal", "float32", SMALL, gradients=False)
    assert "causal_backward" not in source
    assert "There is no backward pass: the file was exported without one." in source
    assert 'raise NotImplementedError("causal has no backward pass by kernels")' in source
    (tmp_path / "causal.py").write_text(source)
    assert lint(tmp_path) == ""


def test_optional_inputs_are_taken_by_name():
    assert "def gla(q, k, v, g):" in mixc.export_source("gla")
    assert "def gla(q, k, v, g, S0):" in mixc.export_source("gla", optional=["S0"])
    with pytest.raises(ArgumentError, match="gla has no input 'S1' with a default; there is S0"):
        mixc.export_source("gla", optional=["S1"])


def test_the_command_writes_a_file_and_says_what_the_kernels_cost(tmp_path):
    path = tmp_path / "mine.py"
    arguments = ["export", "hgrn", "-o", str(path), "--dtype", "fp32", "--target", "cuda:90"]
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == 0, done.output
    assert "hgrn_backward" in done.output
    compile(path.read_text(), path.name, "exec")
    assert torch.__name__ in path.read_text()
