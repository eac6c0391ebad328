"""The search over a space: order, resuming, what is kept at a kill, sharing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mixc.autotune.search.journal import drop_unfinished_line, open_storage
from mixc.autotune.search.kernels import Space
from mixc.autotune.search.search import Search
from mixc.autotune.search.trial import Outcome
from mixc.ir.knob import Knob

KNOBS = (
    Knob("rows", (16, 32, 64, 128), 64, "test"),
    Knob("keys", (16, 32, 64), 32, "test"),
)


def no_refusal(configuration):
    return None


def space(refusal=no_refusal):
    return Space(KNOBS, refusal, "source")


def time_of(configuration):
    """Fastest at rows 32, keys 64."""
    return 100.0 + abs(configuration["rows"] - 32) + abs(configuration["keys"] - 64)


def evaluate(configuration, best_us):
    return Outcome("ok", "", time_of(configuration), 1.0, 1e-3, 1e-2, 0.5)


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "studies" / "study.journal"


def search(journal, refusal=no_refusal, seed=0):
    return Search(space(refusal), open_storage(journal), "study", seed)


def test_the_default_and_the_nearest_go_first(journal):
    nearest = {"rows": 128, "keys": 16}
    history = search(journal).run(evaluate, 4, [space().default, nearest])
    assert [t.configuration for t in history.trials[:2]] == [{"rows": 64, "keys": 32}, nearest]


def test_no_configuration_is_tried_twice_and_the_end_is_seen(journal):
    history = search(journal).run(evaluate, 50, [space().default])
    tried = {tuple(t.configuration.items()) for t in history.trials}
    assert len(history.trials) == len(tried) == 12
    assert history.best()[0].configuration == {"rows": 32, "keys": 64}


def test_what_the_target_refuses_is_not_tried(journal):
    def refusal(configuration):
        return "too large" if configuration["rows"] > 64 else None

    history = search(journal, refusal).run(evaluate, 50)
    assert len(history.trials) == 9
    assert max(t.configuration["rows"] for t in history.trials) == 64


def test_a_second_run_goes_on_and_then_returns_at_once(journal):
    first = search(journal).run(evaluate, 3, [space().default])
    calls = []

    def counted(configuration, best_us):
        calls.append(configuration)
        return evaluate(configuration, best_us)

    second = search(journal, seed=1).run(counted, 5, [space().default])
    assert [t.outcome for t in second.trials[:3]] == [t.outcome for t in first.trials]
    assert len(calls) == 2
    search(journal).run(counted, 5, [space().default])
    assert len(calls) == 2


def test_failed_and_hopeless_trials_are_kept_with_their_messages(journal):
    def picky(configuration, best_us):
        if configuration["rows"] == 128:
            return Outcome("failed", "wrong: o: error 1, limit 0.1")
        if best_us is not None and time_of(configuration) > 2 * best_us:
            return Outcome("hopeless", "given up", time_of(configuration))
        return evaluate(configuration, best_us)

    search(journal).run(picky, 12)
    history = search(journal).history()
    assert history.number("failed") == 3
    assert {t.outcome.message for t in history.trials if t.outcome.status == "failed"} == {
        "wrong: o: error 1, limit 0.1"
    }
    assert all(t.outcome.status == "ok" for t in history.best(20))


def test_ctrl_c_keeps_the_best_so_far(journal):
    def interrupted(configuration, best_us):
        if best_us is not None:
            raise KeyboardInterrupt
        return evaluate(configuration, best_us)

    history = search(journal).run(interrupted, 10, [space().default])
    assert history.interrupted
    assert [t.configuration for t in history.trials] == [space().default]
    again = search(journal).run(evaluate, 2, [space().default])
    assert len(again.trials) == 2  # what was interrupted does not count


def test_a_kill_loses_no_finished_trial(journal, tmp_path):
    script = tmp_path / "victim.py"
    script.write_text(
        "import time\n"
        "from mixc.autotune.search.journal import open_storage\n"
        "from mixc.autotune.search.kernels import Space\n"
        "from mixc.autotune.search.search import Search\n"
        "from mixc.autotune.search.trial import Outcome\n"
        "from mixc.ir.knob import Knob\n"
        "knobs = (Knob('rows', (16, 32, 64, 128), 64, ''), Knob('keys', (16, 32, 64), 32, ''))\n"
        "space = Space(knobs, lambda _: None, 'source')\n"
        "def evaluate(configuration, best_us):\n"
        "    if best_us is not None and len(done) >= 3:\n"
        "        print('hanging', flush=True)\n"
        "        time.sleep(600)\n"
        "    done.append(configuration)\n"
        "    return Outcome('ok', '', 100.0 + len(done), 1.0)\n"
        "done = []\n"
        f"storage = open_storage({str(journal)!r})\n"
        "Search(space, storage, 'study', 0).run(evaluate, 12, [space.default])\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "hanging\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with journal.open("ab") as file:  # as if the kill had met a write
        file.write(b'{"op_code":6,"worker_id"')
    started = time.monotonic()
    history = search(journal).run(evaluate, 5, [space().default])
    assert time.monotonic() - started < 20  # no lock is waited for
    assert [t.outcome.time_us for t in history.trials[:3]] == [101.0, 102.0, 103.0]
    assert len(history.trials) == 5
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_default_that_was_killed_runs_again(journal):
    def killed(configuration, best_us):
        raise SystemExit

    with pytest.raises(SystemExit):
        search(journal).run(killed, 3, [space().default])
    history = search(journal).run(evaluate, 2, [space().default])
    assert history.trials[0].configuration == space().default


def test_two_searches_share_a_study(journal):
    one, other = search(journal, seed=1), search(journal, seed=2)
    one.run(evaluate, 3, [space().default])
    history = other.run(evaluate, 6, [space().default])
    assert len(history.trials) == 6
    assert len({tuple(t.configuration.items()) for t in history.trials}) == 6


@pytest.mark.parametrize(
    ("text", "left"),
    [("", ""), ("{}\n", "{}\n"), ("{}\n{", "{}\n"), ("{", ""), ("{}\n" + "x" * 9000, "{}\n")],
)
def test_an_unfinished_line_is_dropped(tmp_path, text, left):
    path = tmp_path / "journal"
    path.write_text(text)
    drop_unfinished_line(path)
    assert path.read_text() == left


def test_a_database_holds_a_study_too(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    history = Search(space(), storage, "study", 0).run(evaluate, 2, [space().default])
    assert len(history.trials) == 2
