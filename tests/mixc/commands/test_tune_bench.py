"""mixc tune, bench and tuned: whole paths on small problems, and the forms of their answers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

import mixc
from mixc.autotune.results.stored import say_once
from mixc.autotune.search.search import History, Trial
from mixc.autotune.search.trial import Outcome
from mixc.cli import commands
from mixc.commands.tune_answer import cut_lines
from mixc.commands.tune_table import TrialTable
from mixc.show.written import console

SPEC = """\
mixer: small
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E]}
dims: {I: T, J: T}
params: {window: 5}
attention:
  over: J
  score: sum(q * k, D)
  mask: j <= i and i - j < window
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""
SIZES = ("--size", "T=64", "--size", "D=16", "--size", "E=16", "--size", "H=2")
TUNE = ("tune", "small.yaml", "--device", "cpu", "--dtype", "fp32", *SIZES)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MIXC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.yaml").write_text(SPEC)
    say_once.cache_clear()
    return tmp_path


@pytest.fixture
def run(folder):
    return lambda *args: CliRunner().invoke(commands, [str(arg) for arg in args])


def test_tune_stores_what_the_next_load_uses(run, folder):
    result = run(*TUNE, "--trials", "2", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert list(data) == [
        "spec", "device", "dtype", "sizes", "modelled", "trials", "default", "winner", "speedup",
        "stored", "history", "pictures", "benchmark",
    ]  # fmt: skip
    assert list(data["trials"]) == [
        "finished", "of_this_run", "failed", "hopeless", "cut", "interrupted",
    ]  # fmt: skip
    assert (data["trials"]["finished"], data["trials"]["failed"]) == (2, 0)
    assert not data["trials"]["interrupted"]
    assert data["history"][0]["configuration"] == data["default"]["configuration"]
    assert data["winner"]["time_us"] <= data["default"]["time_us"]
    assert 0 <= data["winner"]["error"] <= data["winner"]["limit"]
    assert not data["modelled"]

    stored = folder / "data" / "tuned"
    (path,) = stored.glob("*/*.yaml")
    assert str(path) == data["stored"]
    # Another configuration in the file, so that one sees where it comes from.
    text = path.read_text()
    changed = dict(data["winner"]["configuration"], block_rows=16, block_keys=32)
    for name in ("block_rows", "block_keys"):
        before = f"{name}: {data['winner']['configuration'][name]}"
        assert before in text
        text = text.replace(before, f"{name}: {changed[name]}")
    path.write_text(text)
    attend = mixc.load("small.yaml")
    q, k, v = (torch.randn(1, 2, 60, 16) for _ in range(3))
    exact = mixc.load("small.yaml", backend="reference")(q.double(), k.double(), v.double())
    torch.testing.assert_close(attend(q, k, v), exact.float(), atol=1e-4, rtol=1e-4)
    (runner,) = attend._execution._runners.values()
    (module,) = runner.modules.values()
    assert {t.dim: t.block for t in module.plan.kernels[0].program.tiles}["I"] == 16

    again = run(*TUNE, "--trials", "2", "--json")
    told = json.loads(again.stdout)
    assert told["trials"]["of_this_run"] == 0
    assert told["winner"]["configuration"] == changed  # at once, from the file

    listed = json.loads(run("tuned", "small", "--json").stdout)["results"]
    assert [(r["spec"], r["dtype"], r["path"]) for r in listed] == [("small", "float32", str(path))]
    assert "small" in run("tuned", "small").stdout
    assert json.loads(run("tuned", "other", "--json").stdout) == {"results": []}


def test_tune_stores_what_training_steps_use(run, folder, caplog):
    result = run(*TUNE, "--grad", "--trials", "1", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["spec"] == "small_backward"
    path = Path(data["stored"])
    before = f"block_rows: {data['winner']['configuration']['block_rows']}"
    path.write_text(path.read_text().replace(before, "block_rows: 16"))
    attend = mixc.load("small.yaml")
    q, k, v = (torch.randn(1, 2, 60, 16, requires_grad=True) for _ in range(3))
    exact = mixc.load("small.yaml", backend="reference")(*(x.double() for x in (q, k, v)))
    wanted = torch.autograd.grad(exact.square().sum(), (q, k, v))
    with caplog.at_level("WARNING", "mixc.tuned"):
        found = torch.autograd.grad(attend(q, k, v).square().sum(), (q, k, v))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    (training,) = attend._execution._trainings.values()
    (passes,) = training.passes.values()
    sizes = {"B": 1, "H": 2, "I": 60, "J": 60, "T": 60, "D": 16, "E": 16}
    assert passes.backward.choose(sizes, torch.float32)["block_rows"] == 16
    assert passes.forward.choose(sizes, torch.float32) == {}
    (told,) = [record.getMessage() for record in caplog.records]
    assert "`mixc tune small` finds one" in told  # the forward pass alone is not tuned
    found = torch.autograd.grad(attend(q.detach(), k, v).square().sum(), (k, v))
    torch.testing.assert_close(found, wanted[1:], atol=1e-4, rtol=1e-4)
    assert "`mixc tune small --grad` finds one" in caplog.records[-1].getMessage()


def test_the_winner_is_timed_beside_peers(run, monkeypatch):
    from mixc.autotune.bench.all_peers import PEERS

    monkeypatch.setattr("mixc.autotune.bench.all_peers.PEERS", {"sdpa": PEERS["sdpa"]})
    result = run(*TUNE, "--trials", "1", "--peers")
    assert result.exit_code == 0, result.output
    assert "nothing beat the default" in result.stdout
    assert "sdpa: " in result.stdout
    assert "fastest peer" in result.stdout
    data = json.loads(run(*TUNE, "--trials", "1", "--peers", "--json").stdout)
    assert data["benchmark"]["sizes"]["T"] == 64
    assert run("tune", "--all", "--peers").exit_code == 2


def test_what_was_cut_is_said_with_its_most_frequent_reason():
    registers = [f"a product would hold {n} vectors, of 32 registers" for n in (37, 1_040, 40)]
    lines = list(cut_lines(["k takes 300,000 bytes", *registers]))
    assert lines == [
        "cut before a trial, 3 times: a product would hold 37 vectors, of 32 registers",
        "cut before a trial, 1 times: k takes 300,000 bytes",
    ]


def test_the_time_that_is_left_is_that_of_the_trials_to_come(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("mixc.commands.tune_table.time.monotonic", lambda: now[0])
    table = TrialTable(console(), SimpleNamespace(name="small"), 12, quiet=True)
    trial = Trial(0, {}, Outcome("ok", "", 1.0, 0.0))
    now[0] = 3.0
    table.update(History([trial] * 3))  # two are of an earlier run
    now[0] = 8.0
    table.update(History([trial] * 4))
    assert table.time_left(History([trial] * 4)) == "8 s, about 32 s left"


def test_a_tune_that_is_killed_goes_on(folder):
    command = [sys.executable, "-m", "mixc.cli", *TUNE]
    process = subprocess.Popen(
        [*command, "--trials", "12"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    line = process.stderr.readline()
    assert line.split()[0] == "1/12", line
    time.sleep(0.5)  # somewhere in the second trial
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = subprocess.run(
        [*command, "--trials", "2", "--json"], capture_output=True, text=True, check=False
    )
    data = json.loads(resumed.stdout)
    assert resumed.returncode == 0
    assert data["trials"]["finished"] >= 2
    assert data["trials"]["of_this_run"] < data["trials"]["finished"]
    assert data["history"][0]["configuration"] == data["default"]["configuration"]


def test_a_device_that_is_not_here_takes_static(run):
    result = run("tune", "causal", "--device", "cuda:90")
    assert result.exit_code == 2
    assert "--static" in result.output
    assert run("tune", "causal", "--device", "cuda:91", "--static").exit_code == 2
    assert run("tune", "causal", "--device", "cpu", "--size", "S=3").exit_code == 2


def test_nothing_tuned_says_where_results_go(run, folder):
    assert str(folder / "data" / "tuned") in run("tuned", "small").stdout.replace("\n", "")


def test_what_comes_with_mixc_is_listed(run):
    shown = run("tuned").stdout
    assert "(modelled)" in shown
    assert "(with mixc)" in " ".join(shown.split())


def test_bench_takes_turns_with_a_peer(run):
    result = run("bench", "small.yaml", "--device", "cpu", "--peer", "sdpa", "--dtype", "fp32",
                 *SIZES, "--rounds", "2", "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    (data,) = json.loads(result.stdout)["benchmarks"]
    assert [(row["name"], row["status"]) for row in data["rows"]] == [
        ("mixc", "timed"), ("sdpa", "timed"),
    ]  # fmt: skip
    assert data["visible_pairs"] == 2 * sum(min(5, i + 1) for i in range(64))
    table = run(
        "bench", "small.yaml", "--device", "cpu", "--dtype", "fp32", *SIZES, "--rounds", "2"
    )
    assert "GFLOP/s" in table.stdout
    assert "machine: " in table.stdout
    assert data["machine"]["products_gflop_s"] > 0
    assert all(row["share"] > 0 for row in data["rows"])


def test_a_peer_that_is_not_there(run):
    result = run("bench", "causal", "--peer", "cudnn")
    assert result.exit_code == 2
    assert "--peer takes sdpa, " in result.output
    assert "flex, dense, eager" in result.output
