"""A budget of time: every spec once, then where trials have gained, and never past its end."""

import math

import pytest

from mixc.autotune.results.devices import Device
from mixc.autotune.results.result import Key, Result
from mixc.autotune.search.budget import FIRST, Budget, Standing, expected_gain, known
from mixc.autotune.search.fleet import Queue, Round, Task
from mixc.autotune.search.journal import open_storage

HERE = Device("cpu", "cpu:avx2", "Some CPU")
TASKS = [Task(name, "bfloat16", 30) for name in ("causal", "gla", "mamba")]


def result(spec, default_us, time_us):
    key = Key(spec, "ab" * 32, "bfloat16", {"D": 64}, {"T": 4096}, HERE)
    return Result(key, {"block_rows": 16}, time_us, default_time_us=default_us)


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "fleet")


def queue(place):
    return Queue(open_storage(place), HERE)


def rounds_of(place, times, seconds, round_s=0.1):
    """The rounds that one machine makes; times of a spec by trials, with the default's first."""
    now = [0.0]
    budget = Budget(seconds, TASKS, lambda: now[0])
    own, done = queue(place), []
    while (taken := budget.take(own)) is not None:
        trial, task = taken
        now[0] += round_s
        done.append((task.spec, task.trials))
        default_us, *best = times[task.spec]
        found = result(task.spec, default_us, best[task.trials // FIRST - 1])
        own.finish(trial, found, round_s)
    return done


def test_every_spec_is_tried_before_one_is_tried_again_unless_it_gains_much(place):
    flat = [100.0] * 7
    times = {"causal": flat, "gla": [100.0, 80, 70, 60, 50, 45, 40], "mamba": flat}
    done = rounds_of(place, times, 60.0)
    assert {spec for spec, _ in done[:3]} == {"causal", "gla", "mamba"}
    assert done[3:7] == [("gla", 10), ("gla", 15), ("gla", 20), ("gla", 25)]
    assert sorted(done)[-1] == ("mamba", 30)  # there is time for all of all
    assert len(done) == 3 * 6


def test_what_one_machine_knows_another_goes_on_with(place):
    times = {task.spec: [100.0, 90, 90, 90, 90, 90, 90] for task in TASKS}
    first = rounds_of(place, times, 45.0, round_s=10.0)
    assert len(first) == 4
    rest = rounds_of(place, times, 1000.0, round_s=1.0)
    assert len(first) + len(rest) == 3 * 6
    assert not set(first) & set(rest)


def test_what_runs_or_failed_elsewhere_is_left(place):
    other = queue(place)
    other.offer([Task("gla", "bfloat16", FIRST), Task("mamba", "bfloat16", FIRST)])
    trial, task = other.take()
    other.fail(trial, "no kernel")
    other.take()  # and runs on
    assert [r.state for r in other.rounds()] == ["failed", "running"]
    times = {task.spec: [100.0] * 7 for task in TASKS}
    assert {spec for spec, _ in rounds_of(place, times, 60.0)} == {"causal"}
    assert task.spec == "gla"


def test_no_round_is_begun_that_does_not_fit(place):
    own = queue(place)
    clock = iter([0.0, 59.5]).__next__
    assert Budget(60.0, TASKS, clock).take(own) is None  # half a second is left
    assert list(own.rounds()) == []


def test_the_expected_gain_is_that_of_records():
    records = [math.fsum(1 / n for n in range(1, k + 1)) for k in (5, 10)]
    grown = records[1] / records[0] - 1
    assert expected_gain(Standing(), 0.3, 5) == 0.3
    assert expected_gain(Standing(5, 0.4, 1.0), 0.4, 5) == pytest.approx(0.4 * grown)
    assert expected_gain(Standing(5, 0.0, 1.0), 0.4, 5) == pytest.approx(0.2 * grown)
    assert expected_gain(Standing(25, 0.4, 1.0), 0.4, 5) < expected_gain(
        Standing(5, 0.4, 1.0), 0.4, 5
    )


def test_of_several_rounds_the_last_counts():
    made = [
        Round(Task("gla", "bfloat16", 10), "done", 4.0, result("gla", 100.0, 50.0)),
        Round(Task("gla", "bfloat16", 5), "done", 3.0, result("gla", 100.0, 90.0)),
    ]
    (standing,) = known(made).values()
    assert standing == Standing(10, pytest.approx(math.log(2)), 4.0)
