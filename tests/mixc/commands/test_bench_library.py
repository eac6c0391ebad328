"""mixc bench --all: the library's timings, one run that goes on where it stopped."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from mixc.autotune.bench.bench import Benchmark, Row
from mixc.campaign.jobs import suite
from mixc.campaign.record import Outcome, Record, this_machine
from mixc.cli import commands
from mixc.commands.bench_library import bench_library
from mixc.commands.bench_specs import cells, verdict, write
from mixc.compiler.language.find import find_spec, library
from mixc.compiler.language.load import load_file

SPECS = [path.stem for path in library()]


def run(*words):
    return CliRunner().invoke(commands, ["bench", *words])


def test_a_suite_is_the_library_forward_and_then_in_training():
    jobs = suite(SPECS, "cpu", "float32", grad=True)
    assert [job.kind for job in jobs] == ["bench"] * len(SPECS) + ["train"] * len(SPECS)
    assert jobs[0].arguments == (
        "bench", SPECS[0], "--device", "cpu", "--dtype", "float32", "--peers", "--json",
    )  # fmt: skip
    assert "--grad" in jobs[-1].arguments
    assert all(job.timed for job in jobs)
    assert len({job.key for job in jobs}) == len(jobs)


@pytest.fixture
def timings(monkeypatch):
    """Commands that are not run: the words of those that would be."""
    asked = []

    def answer(job, seconds):
        asked.append(job.arguments[1])
        row = {"name": "mixc", "time_us": 50.0, "share": 0.5, "compared": True, "status": "timed"}
        peer = {**row, "name": "sdpa", "time_us": 100.0}
        bad = job.arguments[1] == SPECS[1]
        data = {"rows": [row, peer], "ratio": 2.0, "verdict": "faster"}
        return Outcome("failed" if bad else "done", 0.1, {} if bad else data)

    monkeypatch.setattr("mixc.campaign.running.run_command", answer)
    return asked


def test_what_is_timed_is_kept_and_not_timed_again(timings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = Record(tmp_path / "bench" / "outcomes.jsonl", this_machine("cpu"))
    known = suite(SPECS, "cpu", "bfloat16", grad=False)[0]
    first.add(known, Outcome("done", 1.0, {"rows": [], "ratio": None}))
    answer = run("--all", "--device", "cpu", "--json")
    assert answer.exit_code == 1  # one of them failed
    data = json.loads(answer.stdout)
    assert timings == SPECS[1:]
    assert (data["timed"], data["failed"], data["left"]) == (len(SPECS) - 1, 1, 0)
    assert f"bench {SPECS[2]} bfloat16" in data["outcomes"]
    text = (tmp_path / "bench" / "report.md").read_text()
    assert "| work | mixc | of machine | fastest peer | ratio |" in text
    assert f"| {SPECS[2]} bfloat16 | 50 us | 50% | sdpa, 100 us | 2.00 |" in text
    assert f"- bench {SPECS[1]} bfloat16: failed" in text
    assert run("--all", "--device", "cpu").exit_code == 1
    assert timings == SPECS[1:]


def test_a_run_ends_in_time_and_says_what_is_left(timings, tmp_path):
    found = bench_library("cpu", "float32", True, 0.1, tmp_path, quiet=True)
    assert not timings  # six seconds are not enough to begin
    assert found["left"] == 2 * len(SPECS)
    assert found["timed"] == found["failed"] == 0


@pytest.mark.parametrize("words", [("--all", "gla"), ("--all", "--size", "D=8"), ()])
def test_what_it_does_not_take(words):
    answer = run(*words)
    assert answer.exit_code == 2
    assert "--all" in answer.output


def _heeds_ctrl_c() -> None:
    """Tests that a shell runs in the background ignore it, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc to see children in")
def test_ctrl_c_stops_the_timing_at_hand(tmp_path):
    words = ("bench", "--all", "--device", "cpu", "--dtype", "fp32", "--output", tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "mixc.cli", *words],
        start_new_session=True,
        stderr=subprocess.PIPE,
        preexec_fn=_heeds_ctrl_c,
    )
    while not (tmp_path / "outcomes.jsonl").exists():
        time.sleep(0.1)
        assert process.poll() is None, process.stderr.read()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (running := children.read_text().split()):
        time.sleep(0.1)
    time.sleep(1)  # until it is more than begun
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert (tmp_path / "report.md").exists()
    # Whoever waits for it now, it takes a moment to be gone.
    end = time.monotonic() + 20
    while Path(f"/proc/{running[0]}").exists():
        assert time.monotonic() < end, "the timing at hand still runs"
        time.sleep(0.05)


def test_a_gap_inside_the_noise_has_no_ratio():
    def found(own, peer, most=1.0):
        between = (own - 2.0, own + 5.0), (peer - 1.0, peer + most)
        rows = (
            Row("mixc", "", "timed", time_us=own, quartiles_us=between[0], ratio=peer / own),
            Row("sdpa", "", "timed", time_us=peer, quartiles_us=between[1], ratio=1.0),
        )
        return Benchmark("a", "float32", "cpu", {}, None, 5, rows)

    assert verdict(found(100.0, 104.0)).startswith("a tie")
    assert verdict(found(100.0, 150.0)) == "1.50 times the fastest peer"
    assert verdict(found(100.0, 150.0, most=900.0)) == "1.50 times the fastest peer"
    assert found(150.0, 100.0).verdict == "slower"
    assert "a tie" in cells(found(100.0, 104.0).rows[0], told=False)
    assert "1.50" in cells(found(100.0, 150.0).rows[0])


def test_peers_that_cannot_say_it_for_one_reason_stand_in_one_line():
    row = Row("mixc", "", "timed", time_us=5.0, spread_us=1.0)
    unfit = [Row(name, "", "not sayable", "it has a sink") for name in ("flex", "eager")]
    failed = Row("fla", "", "broken", "wrong: o is off by 2")
    console = Console(file=io.StringIO(), width=120)
    made = Benchmark("causal", "float32", "cpu", {}, None, 5, (row, *unfit, failed))
    write(console, made, load_file(find_spec("causal")))
    said = console.file.getvalue().splitlines()
    assert "flex, eager are not sayable: it has a sink" in said
    assert "fla is broken: wrong: o is off by 2" in said
    assert [line.split()[0] for line in said if line.startswith(("fla", "flex"))] == [
        "fla", "flex,", "fla",
    ]  # fmt: skip
