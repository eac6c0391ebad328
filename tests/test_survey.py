"""The survey of compiled kernels keeps a line for each kernel, and goes on where it stopped."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path


def survey(out: Path, *options: str) -> str:
    command = [sys.executable, "-m", "tests.survey", "--out", str(out), *options]
    made = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=300)
    assert made.returncode == 0, made.stderr
    return made.stdout


def test_a_line_for_each_kernel_once(tmp_path: Path) -> None:
    out = tmp_path / "survey.tsv"
    options = ("hgrn", "--target", "cuda:90", "--size", "64")
    assert "hgrn cuda:90 64 forward" in survey(out, *options)
    lines = list(csv.DictReader(out.open(), delimiter="\t"))
    assert {line["pass"] for line in lines} == {"forward", "backward"}
    ends = [line for line in lines if line["kernel"] == "all kernels"]
    assert [int(end["schedule"].split()[0]) for end in ends] == [
        sum(line["pass"] == end["pass"] for line in lines) - 1 for end in ends
    ]
    assert all(int(line["registers"]) > 0 for line in lines if line not in ends)
    assert survey(out, *options) == ""
    assert list(csv.DictReader(out.open(), delimiter="\t")) == lines
