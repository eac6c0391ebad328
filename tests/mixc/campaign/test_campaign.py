"""A campaign on a device that is not there: its jobs, its pieces, what it keeps and reports."""

import json
import threading
import time

import click
import pytest
from click.testing import CliRunner

from mixc.campaign.__main__ import command
from mixc.campaign.jobs import Job, campaign
from mixc.campaign.record import Machine, Outcome, Record
from mixc.campaign.report import report
from mixc.campaign.running import run_command, run_jobs
from mixc.cli import commands
from mixc.compiler.language.find import library
from mixc.ir.errors import ArgumentError

MACHINE = Machine("NVIDIA H200", "cuda:90", {"torch": "2.11.0", "triton": "3.6.0"})
SPECS = [path.stem for path in library()]
JOBS = [
    Job("forward", "a", ("verify", "a"), 300),
    Job("forward", "b", ("verify", "b"), 300),
    Job("gradients", "a", ("verify", "a", "--grad"), 300),
    Job("bench", "a T=64", ("bench", "a"), 100),
    Job("model", "a T=64", ("compile", "a"), 100),
]


class Clock:
    """Time that passes only when a job takes some."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def job(self, seconds):
        """A run of a job that takes so long, unless it is stopped before."""

        def run(job, limit):
            self.now += min(seconds, limit)
            if seconds > limit:
                return Outcome("timed out", limit, message=f"over {limit:.0f} s")
            return Outcome("done", seconds)

        return run


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gpu" / "outcomes.jsonl"


def statuses(path):
    return [o.status for o in Record(path, MACHINE).outcomes.values()]


def test_every_spec_is_checked_before_one_is_timed_and_every_command_is_one_of_mixc():
    jobs = campaign(SPECS)
    assert len({job.key for job in jobs}) == len(jobs)
    kinds = [job.kind for job in jobs]
    assert kinds[: 2 * len(SPECS)] == ["forward"] * len(SPECS) + ["gradients"] * len(SPECS)
    assert {job.subject for job in jobs if job.kind == "forward"} == set(SPECS)
    for job in jobs:
        name, *rest = job.arguments
        found = commands.get_command(click.Context(commands), name)
        assert found is not None
        found.make_context(name, rest)
    assert "gla B=1 T=8192 H=96 D=128 E=128" in {job.subject for job in jobs}
    assert "mamba B=1 C=8192 T=65536 N=16" in {job.subject for job in jobs}


def test_a_piece_ends_in_time_and_the_next_goes_on(path):
    clock = Clock()
    done = run_jobs(JOBS, Record(path, MACHINE), 250, clock.job(80), clock=clock)
    assert not done
    assert clock.now <= 250
    assert statuses(path) == ["done"] * 3  # with 10 seconds left, none is begun
    assert run_jobs(JOBS, Record(path, MACHINE), 250, clock.job(80), clock=clock)
    assert statuses(path) == ["done"] * 5


def test_a_job_that_the_end_cuts_is_made_again_and_given_up_the_second_time(path):
    clock = Clock()
    assert not run_jobs(JOBS[:1], Record(path, MACHINE), 60, clock.job(70), clock=clock)
    assert statuses(path) == ["cut"]
    assert run_jobs(JOBS[:1], Record(path, MACHINE), 60, clock.job(70), clock=clock)
    assert statuses(path) == ["timed out"]
    record = Record(path, MACHINE)
    record.forget(("timed out",))
    assert run_jobs(JOBS[:1], record, 100, clock.job(70), clock=clock)
    assert statuses(path) == ["done"]


def test_a_limit_within_a_piece_ends_a_job(path):
    clock = Clock()
    assert run_jobs(JOBS[3:4], Record(path, MACHINE), 1000, clock.job(101), clock=clock)
    assert statuses(path) == ["timed out"]


def test_a_torn_line_is_made_again_and_another_machine_is_refused(path):
    record = Record(path, MACHINE)
    record.add(JOBS[0], Outcome("done", 1.0))
    record.add(JOBS[1], Outcome("done", 1.0))
    path.write_text(path.read_text()[:-9])
    again = Record(path, MACHINE)
    assert [again.is_open(job) for job in JOBS[:2]] == [False, True]
    again.add(JOBS[1], Outcome("done", 1.0))
    assert [json.loads(line).get("key") for line in path.read_text().splitlines()] == [
        None, "forward a", "forward b",
    ]  # fmt: skip
    with pytest.raises(ArgumentError, match=r"H200.*this is NVIDIA H100.*another folder"):
        Record(path, Machine("NVIDIA H100", "cuda:90", MACHINE.versions))


def test_checks_run_side_by_side_and_what_is_timed_alone(path):
    running, most, lock = set(), {}, threading.Lock()

    def run(job, limit):
        with lock:
            running.add(job.key)
            most[job.timed] = max(most.get(job.timed, 0), len(running))
        time.sleep(0.2)
        with lock:
            running.remove(job.key)
        return Outcome("done", 0.2)

    jobs = [*JOBS[:3], *(Job("bench", str(n), ("bench",), 60) for n in range(2))]
    assert run_jobs(jobs, Record(path, MACHINE), 60, run, side_by_side=3)
    assert most == {False: 3, True: 1}


def test_a_command_answers_fails_or_is_stopped():
    words = ("verify", "linear", "--backend", "reference", "--cases", "1", "--json")
    good = run_command(Job("forward", "linear", words, 100), 100)
    assert (good.status, good.data) == ("done", {"counts": {"right": 1}, "wrong": []})
    bad = run_command(Job("forward", "linaer", ("verify", "linaer", "--json"), 100), 100)
    assert bad.status == "failed"
    assert "linear" in bad.message
    late = run_command(Job("forward", "linear", words, 100), 0.2)
    assert (late.status, late.data) == ("timed out", {})


def test_the_report_says_what_is_right_how_fast_and_what_was_expected(path):
    record = Record(path, MACHINE)
    wrong = {"status": "wrong", "message": "o differs by 0.3\nat row 4"}
    row = {"status": "timed", "compared": True, "message": ""}
    rows = [
        {
            **row,
            "name": "mixc",
            "time_us": 500.0,
            "backward_us": 900.0,
            "backward_ratio": 1.5,
            "share": 0.6,
        },
        {**row, "name": "eager", "time_us": 100.0, "compared": False},
        {**row, "name": "sdpa", "time_us": 1000.0},
    ]
    machine = {"products_gflop_s": 500000.0, "copies_gb_s": 3000.0}
    bench = {"rows": rows, "ratio": 2.0, "verdict": "faster", "machine": machine}
    jobs = [*JOBS, Job("tune", "a T=64", ("tune",), 100), Job("train", "a T=64", (), 100)]
    answers = {
        "forward a": Outcome("done", 1, {"counts": {"right": 9}, "wrong": []}),
        "forward b": Outcome("failed", 1, {"counts": {"right": 8, "wrong": 1}, "wrong": [wrong]}),
        "bench a T=64": Outcome("done", 1, bench),
        "train a T=64": Outcome("done", 1, {**bench, "verdict": "tie"}),
        "model a T=64": Outcome("done", 1, {"time_us": 400.0, "machine": "H100"}),
        "tune a T=64": Outcome(
            "done", 1, {"default": {"time_us": 2000.0}, "winner": {"time_us": 480.0}}
        ),
        "gradients a": Outcome("timed out", 300, message="over 300 s"),
    }
    for job in jobs:
        record.add(job, answers[job.key])
    text = report(record, jobs)
    assert text.startswith("# mixc on NVIDIA H200\n\ncuda:90, torch 2.11.0, triton 3.6.0; 20")
    assert "7 of 7 jobs made" in text
    assert "Measured beside it: products 500,000 to 500,000 GFLOP/s." in text
    assert "1 of 2 specs are right (17 right, 1 wrong)." in text
    forward = "| a T=64 | 2.00 ms | 480 us | 500 us | 60% | sdpa, 1.00 ms | 2.00 | 400 us | 1.25 |"
    assert forward in text.splitlines()
    assert "| a T=64 | 500 us | 900 us | sdpa, 1.00 ms | a tie | 1.50 |" in text.splitlines()
    assert "- forward b: failed; wrong: o differs by 0.3" in text
    assert "- gradients a: timed out; over 300 s" in text


def test_without_a_gpu_it_says_so_and_a_dry_run_lists_the_jobs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused = CliRunner().invoke(command, [])
    assert refused.exit_code == 2
    assert "needs a GPU" in refused.output
    listed = CliRunner().invoke(command, ["--dry-run", "--spec", "gla", "--only", "train"])
    assert listed.exit_code == 0
    assert len(listed.output.splitlines()) == 8
    assert all(
        "mixc bench gla --device cuda --grad --peers" in x for x in listed.output.split("\n")[:-1]
    )
    assert list(tmp_path.iterdir()) == []
