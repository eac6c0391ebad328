"""What the pictures of a search show, and that they are drawn."""

from pathlib import Path

import pytest

from mixc.autotune.bench.machine import Machine
from mixc.autotune.bench.work import Work
from mixc.autotune.results.devices import Device
from mixc.autotune.results.result import Key, Result
from mixc.autotune.search.search import History, Trial
from mixc.autotune.search.trial import Outcome
from mixc.autotune.search.tuned import Tuned
from mixc.commands.tune_plots import best_so_far, draw, importances

KEY = Key("causal", "0" * 64, "float32", {"D": 64}, {"T": 64}, Device("cpu", "cpu:avx2", "A CPU"))
MACHINE = Machine("A CPU", "cpu:avx2", 100.0, 10.0)


def history(times):
    """Rows decide the time, keys do nothing; None: a trial that failed."""
    trials = []
    for number, time_us in enumerate(times):
        status = "failed" if time_us is None else "ok"
        chosen = {"rows": 16 << (number % 4), "keys": 16 << (number // 4), "threads": 2}
        trials.append(Trial(number, chosen, Outcome(status, "", time_us, 0.1)))
    return History(trials)


TIMES = [100.0, None, 40.0, 20.0] + [100.0, 80.0, 40.0, 20.0] * 3


def tuned(times):
    result = Result(KEY, {"rows": 128}, 20.0, default_time_us=100.0, sizes={"T": 64})
    return Tuned(result, Path("kept.yaml"), history(times), {"rows": 16}, len(times))


def test_the_best_so_far_starts_with_the_first_that_was_right():
    assert best_so_far([None, 30.0, None, 40.0, 10.0]) == [None, 30.0, 30.0, 30.0, 10.0]


def test_the_knob_that_decides_is_the_most_important():
    found = importances(history(TIMES))
    assert [*found] == ["rows", "keys"]  # and none that never varied
    assert found["rows"] > 0.8


@pytest.mark.parametrize("times", [[20.0, 30.0, None], [None, 20.0]])
def test_a_few_trials_say_nothing_of_importance(times):
    assert importances(history(times)) == {}


def test_pictures_are_written_where_there_is_data(tmp_path):
    work = Work(flops=1e6, pairs=10, bytes=10**5)
    drawn = draw(tuned(TIMES), tmp_path / "all", work, MACHINE)
    assert [p.name for p in drawn] == [
        "history.png", "regret.png", "importance.png", "roofline.png",
    ]  # fmt: skip
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in drawn)
    fewer = draw(tuned([30.0, 20.0]), tmp_path / "few", None, None)
    assert [p.name for p in fewer] == ["history.png", "regret.png"]
