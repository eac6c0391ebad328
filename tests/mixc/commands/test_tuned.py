"""mixc tuned: listed, compared, merged, pruned."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from mixc.autotune.results.devices import Device
from mixc.autotune.results.result import Key, Result
from mixc.autotune.results.stored import save
from mixc.cli import commands

HERE = Device("cpu", "cpu:avx2", "Some CPU")
OTHER = replace(HERE, name="Other CPU")
KEY = Key("small", "ab" * 32, "bfloat16", {"D": 64}, {"T": 4096}, HERE)
RESULT = Result(KEY, {"rows": 16}, 9.0)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXC_DATA", str(tmp_path / "data"))
    return lambda *args: CliRunner().invoke(commands, ["tuned", *(str(arg) for arg in args)])


def test_results_of_two_machines_come_together_and_stand_side_by_side(run, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    save(RESULT, one)
    path = save(replace(RESULT, key=replace(KEY, device=OTHER), time_us=12.0), other)
    merged = json.loads(run("merge", one, path, "--json").stdout)
    assert merged["found"] == len(merged["written"]) == 2
    (work,) = json.loads(run("compare", "small", "--json").stdout)["works"]
    assert work["sizes"] == "D=64 T=4096"
    assert work["times_us"] == {"Some CPU": 9.0, "Other CPU": 12.0}
    assert "12 us" in run("compare").stdout
    assert "0 of them new or faster" in run("merge", one).stdout
    for listing in (("small",), ("list", "small")):  # the word may be left out
        assert "Other CPU" in run(*listing).stdout


def test_pruning_removes_what_is_stale(run, tmp_path):
    kept = save(RESULT, tmp_path / "data" / "tuned")
    old = replace(RESULT, key=replace(KEY, dtype="float32"), versions={"mixc": "0.0.1"})
    stale = save(old, tmp_path / "data" / "tuned")
    (told,) = json.loads(run("prune", "--dry-run", "--json").stdout)["stale"]
    assert told["path"] == str(stale)
    assert stale.exists()
    assert "tuned with mixc 0.0.1, here is" in run("prune").stdout
    assert (kept.exists(), stale.exists()) == (True, False)
    assert run("prune").stdout == "nothing is stale\n"


def test_a_source_that_is_none_is_said(run, tmp_path):
    assert run("merge", tmp_path / "nothing").exit_code == 2
    path = save(RESULT, tmp_path)
    path.write_text(path.read_text().replace("time_us: 9.0", "time_us: soon"))
    result = run("merge", path)
    assert result.exit_code == 2
    assert f"{path}:8: time_us: input should be a valid number, got 'soon'" in result.output
