"""mixc tune --all: two machines share out what there is; what fails and Ctrl-C."""

from types import SimpleNamespace

import pytest

from mixc.autotune.results.devices import Device
from mixc.autotune.results.result import Key, Result
from mixc.autotune.search.fleet import Task
from mixc.autotune.search.tuned import InterruptedEarly
from mixc.cli import commands
from mixc.commands.tune_library import line, tune_library
from mixc.ir.errors import UnsupportedError

HERE = Device("cpu", "cpu:avx2", "Some CPU")
TASKS = [Task(name, "bfloat16", 30) for name in ("causal", "gla", "mamba")]


def tuned(task, interrupted=False):
    key = Key(task.spec, "ab" * 32, task.dtype, {}, {"T": 64}, HERE)
    result = Result(key, {"rows": 16}, 9.0, default_time_us=12.0)
    history = SimpleNamespace(interrupted=interrupted)
    return SimpleNamespace(result=result, path="there.yaml", history=history)


def failing(task):
    if task.spec == "gla":
        raise UnsupportedError("no schedule for gla")
    if task.spec == "mamba":
        raise IndexError("a defect")
    return tuned(task)


def test_each_spec_is_tuned_once_and_what_fails_is_said(tmp_path):
    done = tune_library(HERE, tmp_path / "storage", TASKS, failing, quiet=True)
    assert [line(row) for row in done] == [
        "causal bfloat16, 30 trials: 9 us, default 12 us",
        "gla bfloat16, 30 trials: no schedule for gla",
        "mamba bfloat16, 30 trials: IndexError('a defect')",
    ]
    assert tune_library(HERE, tmp_path / "storage", TASKS, failing, quiet=True) == []


@pytest.mark.parametrize("how", ["in a trial", "in the first", "elsewhere"])
def test_what_is_interrupted_is_given_back(tmp_path, how):
    def interrupted(task):
        if how == "elsewhere":
            raise KeyboardInterrupt
        if how == "in the first":
            raise InterruptedEarly("no trial has ended")
        return tuned(task, interrupted=True)

    if how == "elsewhere":
        with pytest.raises(KeyboardInterrupt):
            tune_library(HERE, tmp_path / "storage", TASKS, interrupted, quiet=True)
    else:
        assert tune_library(HERE, tmp_path / "storage", TASKS, interrupted, quiet=True) == []
    done = tune_library(HERE, tmp_path / "storage", TASKS, tuned, quiet=True)
    assert sorted(row["spec"] for row in done) == ["causal", "gla", "mamba"]


def test_a_budget_comes_back_to_a_spec(tmp_path):
    rows = tune_library(HERE, tmp_path / "storage", TASKS[:1], tuned, quiet=True, budget_s=60)
    assert [row["trials"] for row in rows] == [5, 10, 15, 20, 25, 30]
    assert tune_library(HERE, tmp_path / "storage", TASKS[:1], tuned, True, budget_s=60) == []


@pytest.mark.parametrize(
    "words",
    [
        (), ("--all", "causal"), ("--all", "--size", "T=64"), ("causal", "--budget", "10m"),
        ("--all", "--budget", "10"), ("--all", "--budget", "0m"),
    ],
)  # fmt: skip
def test_one_spec_or_all(words):
    from click.testing import CliRunner

    assert CliRunner().invoke(commands, ["tune", *words]).exit_code == 2
