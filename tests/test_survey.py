"""The survey of compiled kernels keeps a line for each kernel, and goes on where it stopped."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixc.backends.triton.cross_compile import CompileWorkers

from .survey.__main__ import COLUMNS as SURVEYED
from .survey.recurrences import COLUMNS, KEPT, cases, row_of


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


def line_of_all(spec: str, target: str, spilled: int, error: str = "") -> str:
    columns = (spec, target, "128", "forward", "all kernels", "1 kernels", str(spilled))
    return "\t".join((*columns, "", "", "", "", "", error))


def test_what_spills_is_kept_and_what_was_not_looked_at_stays(tmp_path: Path) -> None:
    out, kept = tmp_path / "survey.tsv", tmp_path / "spills.tsv"
    head = "\t".join(SURVEYED)

    def after(*lines: str) -> list[str]:
        out.write_text("\n".join((head, *lines)) + "\n")
        assert survey(out, "--keep", "--kept", str(kept)) == ""
        return kept.read_text().splitlines()[1:]

    first = [("causal", "cuda:80", 12), ("delta", "cuda:80", 244), ("hgrn", "cuda:80", 0)]
    assert after(*(line_of_all(*one) for one in first)) == [
        "cuda:80\t128\tforward\t3 specs\t256",
        "cuda:80\t128\tforward\tcausal\t12",
        "cuda:80\t128\tforward\tdelta\t244",
    ]
    failed = line_of_all("causal", "cuda:80", 0, "1 failed")
    assert after(line_of_all("delta", "cuda:80", 0), failed, line_of_all("abc", "cuda:100", 4)) == [
        "cuda:100\t128\tforward\t1 specs\t4",
        "cuda:100\t128\tforward\tabc\t4",
        "cuda:80\t128\tforward\t3 specs\t12",
        "cuda:80\t128\tforward\tcausal\t12",
    ]


def test_the_kept_table_of_recurrences_is_what_the_model_says() -> None:
    """All lines are there, and two of them, made again, are what they were."""
    lines = list(csv.DictReader(KEPT.open(), COLUMNS, delimiter="\t"))[1:]
    every = list(cases())
    assert [line["mixer"] for line in lines] == [name for name, *_ in every]
    with CompileWorkers(count=1) as workers:
        for place in (0, [name for name, *_ in every].index("hgrn")):
            row, kept = row_of(every[place], workers), lines[place]
            assert (row["sizes"], str(row["kernels"]).count("=")) == (
                kept["sizes"],
                kept["kernels"].count("="),
            )
            assert row["time_us"] == pytest.approx(int(kept["time_us"]), rel=0.15)
            assert row["spilled"] == int(kept["spilled"]) == 0
