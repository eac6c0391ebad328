"""A process that answers, raises, dies, hangs or asks for too much."""

import os
import resource

import pytest

from mixc.autotune.checking.memory import free_memory_bytes
from mixc.autotune.checking.process import Worker, WorkerDied

SOURCE = """
import os, resource, signal, sys, time
from mixc.autotune.checking.serving import serve

def answer(question):
    match question:
        case "die":
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(100)
        case "leave":
            os._exit(7)
        case "too much":
            return resource.getrlimit(resource.RLIMIT_DATA)[0]
    return question, os.getpid()

serve(answer)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    (tmp_path / "answering.py").write_text(SOURCE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker("answering", 1.0) as made:
        yield made


@pytest.mark.parametrize(
    ("question", "fate", "message"),
    [
        ("die", "crashed", "the process crashed: SIGSEGV\nlast words"),
        ("leave", "crashed", "the process crashed: exit code 7"),
        ("hang", "stopped", "stopped: it ran past its limit of 1 s"),
    ],
)
def test_after_a_death_a_new_process_answers(worker, question, fate, message):
    _, first = worker.ask("hello")
    with pytest.raises(WorkerDied) as raised:
        worker.ask(question)
    assert (raised.value.fate, str(raised.value)) == (fate, message)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert worker.ask("hello") == ("hello", worker.pid)


def test_memory_has_a_limit(worker):
    free, limit = free_memory_bytes(), worker.ask("too much")
    assert 0 < limit < 2 * free
    assert limit != resource.RLIM_INFINITY
