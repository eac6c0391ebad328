"""What is kept, by a journal and by databases: kills, sharing, reading back with plain Optuna."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from mixc.autotune.search import journal
from mixc.autotune.search.journal import open_storage
from mixc.autotune.search.kernels import Space
from mixc.autotune.search.search import Search
from mixc.autotune.search.trial import Outcome
from mixc.ir.errors import ArgumentError
from mixc.ir.knob import Knob

SEARCHER = """
import os, random, signal, sys, time
from mixc.autotune.search.journal import open_storage
from mixc.autotune.search.kernels import Space
from mixc.autotune.search.search import Search
from mixc.autotune.search.trial import Outcome
from mixc.ir.knob import Knob

KNOBS = tuple(Knob(name, tuple(range(20)), 0, "") for name in ("rows", "keys"))
SPACE = Space(KNOBS, lambda _: None, "source")

def time_of(configuration):
    return 1.0 + configuration["rows"] + 20 * configuration["keys"]

def run(storage, trials, told, seed):
    search = Search(SPACE, open_storage(storage), "study", seed)
    search.run(lambda c, _: Outcome("ok", "", time_of(c), 0.0), trials, [SPACE.default],
               lambda history: os.write(told, b"%d\\n" % history.trials[-1].number))
"""
# Each child is killed somewhere in a search; what it told of is looked for in the journal.
KILLER = (
    SEARCHER
    + """
finished = set()
for seed in range(20):
    ours, told = os.pipe()
    child = os.fork()
    if child == 0:
        run(sys.argv[1], 10_000, told, seed)
        os._exit(0)
    os.close(told)
    text = os.read(ours, 100)  # a first trial has ended
    time.sleep(random.Random(seed).random() / 10)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(ours, 10_000):
        text += more
    finished |= {int(number) for number in text.split()}
    history = Search(SPACE, open_storage(sys.argv[1]), "study").history()
    times = {t.number: t.outcome.time_us == time_of(t.configuration) for t in history.trials}
    assert finished <= {number for number, right in times.items() if right}
print(len(finished))
"""
)
SHARER = SEARCHER + "run(sys.argv[1], 12, 1, int(sys.argv[2]))\n"


def test_twenty_kills_lose_no_finished_trial(tmp_path):
    journal = tmp_path / "study.journal"
    ran = subprocess.run(
        [sys.executable, "-c", KILLER, str(journal)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) >= 20


def share(storage):
    """Two processes at once on one study; how many trials each told of, and the study."""
    command = [sys.executable, "-c", SHARER, storage]
    both = [subprocess.Popen([*command, seed], stdout=subprocess.PIPE, text=True) for seed in "12"]
    told = [process.communicate(timeout=240)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    return told, optuna.load_study(study_name="study", storage=open_storage(storage))


def check_shared(told, study):
    finished = [t for t in study.trials if "status" in t.user_attrs]
    assert len(finished) in (12, 13)  # the other may have been in its last
    assert len({tuple(sorted(t.params.items())) for t in finished}) >= len(finished) - 1
    assert {t.user_attrs["process"] for t in finished} >= {study.trials[0].user_attrs["process"]}
    assert study.best_value == min(t.value for t in finished if t.value is not None)
    assert study.best_params.keys() == {"rows", "keys"}


def test_two_processes_share_a_journal_that_plain_optuna_reads(tmp_path):
    check_shared(*share(str(tmp_path / "study.journal")))


def test_optuna_dashboard_opens_a_study(tmp_path):
    journal = tmp_path / "study.journal"
    space = Space((Knob("rows", (1, 2, 4), 1, ""),), lambda _: None, "source")
    Search(space, open_storage(journal), "causal-D64", 0).run(
        lambda c, _: Outcome("ok", "", 10.0 / c["rows"], 0.0), 3, [space.default]
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = Path(sys.executable).with_name("optuna-dashboard")
    server = subprocess.Popen([command, "--port", str(port), journal], stderr=subprocess.PIPE)
    try:
        (study,) = answer_of(server, f"http://127.0.0.1:{port}/api/studies")["study_summaries"]
        assert study["study_name"] == "causal-D64"
        shown = answer_of(server, f"http://127.0.0.1:{port}/api/studies/{study['study_id']}")
    finally:
        server.kill()
        server.communicate()
    assert sorted(trial["values"][0] for trial in shown["trials"]) == [2.5, 5.0, 10.0]
    assert {param["name"] for param in shown["union_search_space"]} == {"rows"}


def answer_of(server, address):
    """What a server that is still starting answers."""
    while True:
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            assert server.poll() is None, server.stderr.read()
            time.sleep(0.2)


def test_two_processes_share_a_study_in_postgresql(postgresql):
    check_shared(*share(postgresql))


def test_a_database_whose_tables_another_holds_is_said(postgresql, monkeypatch):
    open_storage(postgresql)
    monkeypatch.setattr(journal, "LOCK_WAIT_S", 0.1)
    with sqlalchemy.create_engine(postgresql).connect() as other:
        other.execute(sqlalchemy.text("lock table studies, version_info in access exclusive mode"))
        with pytest.raises(ArgumentError, match="lock timeout"):
            open_storage(postgresql)


def test_a_search_ends_where_another_process_tries_the_last_that_is_left(tmp_path, monkeypatch):
    space = Space((Knob("rows", (1, 2), 1, ""),), lambda _: None, "source")
    storage = open_storage(tmp_path / "journal")
    outcome = Outcome("ok", "", 1.0, 0.0)
    Search(space, storage, "study", 0).run(lambda *_: outcome, 1, [space.default])
    other = optuna.load_study(study_name="study", storage=storage)
    other.enqueue_trial({"rows": 2})
    other.ask().suggest_categorical("rows", (1, 2))
    # It began after this search had looked.
    monkeypatch.setattr(Search, "_running", lambda _: set())
    history = Search(space, storage, "study", 0).run(lambda *_: outcome, 9, [space.default])
    assert [trial.configuration for trial in history.trials] == [{"rows": 1}]


def test_a_storage_that_does_not_answer_is_said():
    with pytest.raises(ArgumentError, match=r"--storage nothing://\.\.\.: "):
        open_storage("nothing://here/there")


@pytest.mark.parametrize(("limit_s", "state"), [(3600.0, "RUNNING"), (0.0, "FAIL")])
def test_a_trial_that_another_machine_left_open_long_ago_is_given_up(tmp_path, limit_s, state):
    space = Space((Knob("rows", (1, 2), 1, ""),), lambda _: None, "source")
    storage = open_storage(tmp_path / "journal")
    study = optuna.create_study(study_name="study", storage=storage)
    trial = study.ask()
    trial.set_user_attr("process", "elsewhere:1")
    trial.set_user_attr("started_s", time.time())
    Search(space, storage, "study", 0, abandoned_s=limit_s)
    assert [t.state.name for t in study.trials] == [state]
