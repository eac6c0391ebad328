"""The whole of a tuning run, with trials that cost nothing."""

import pytest

from mixc.autotune.results.devices import Device
from mixc.autotune.results.stored import stored_results
from mixc.autotune.search import tune as tuning
from mixc.autotune.search.kernels import Space
from mixc.autotune.search.trial import OneByOne, Outcome, Problem
from mixc.autotune.search.tuned import InterruptedEarly
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.ir.knob import Knob

SIZES = {"B": 1, "H": 2, "G": 2, "I": 100, "J": 100, "T": 100, "D": 64, "E": 64}
SPACE = Space((Knob("rows", (16, 32, 64, 128, 256), 64, ""),), lambda _: None, "source")


class Worker:
    """Times fall with the rows; Ctrl-C comes in the trial that it is told."""

    interrupted = 99

    def __init__(self, time_limit_s):
        self.jobs = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def trying(self, job_of):
        return OneByOne(lambda *trial: self.run(job_of(*trial))[0])

    def run(self, job):
        self.jobs += 1
        if self.jobs == self.interrupted:
            raise KeyboardInterrupt
        times = [6400.0 / c["rows"] for c in job.configurations]
        return [Outcome("ok", "", time, 0.1, times_us=(time,) * 6) for time in times]


@pytest.fixture
def problem(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXC_DATA", str(tmp_path))
    monkeypatch.setattr(tuning, "device_of_type", lambda _: Device("cpu", "cpu:avx2", "Some CPU"))
    monkeypatch.setattr(tuning, "space_of", lambda *_: SPACE)
    monkeypatch.setattr(tuning, "TrialWorker", Worker)
    return Problem(load_file(find_spec("causal")), "float32", "cpu", SIZES, SIZES)


def test_the_winner_is_kept_with_what_it_was_measured_against(problem):
    tuned = tuning.tune(problem, 5, seed=0)
    assert dict(tuned.result.configuration) == {"rows": 256}
    assert (tuned.result.time_us, tuned.result.default_time_us) == (25.0, 100.0)
    assert next(result for _, result in stored_results()) == tuned.result


def test_ctrl_c_stores_the_best_so_far(problem, monkeypatch):
    monkeypatch.setattr(Worker, "interrupted", 3)
    tuned = tuning.tune(problem, 5, seed=0)
    assert tuned.history.interrupted
    assert len(tuned.history.trials) == tuned.result.trials == 2
    best = max(t.configuration["rows"] for t in tuned.history.trials)
    assert dict(tuned.result.configuration) == {"rows": best}
    assert next(result for _, result in stored_results()) == tuned.result


def test_ctrl_c_before_the_first_trial_keeps_nothing(problem, monkeypatch):
    monkeypatch.setattr(Worker, "interrupted", 1)
    with pytest.raises(InterruptedEarly, match="no trial has ended"):
        tuning.tune(problem, 5, seed=0)
