"""A queue of tasks that machines share: each is done once, whoever asks, and results come back."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from mixc.autotune.results.devices import Device
from mixc.autotune.results.result import Key, Result
from mixc.autotune.search.fleet import Queue, Task, fleet_results
from mixc.autotune.search.journal import open_storage

HERE = Device("cpu", "cpu:avx2", "Some CPU")
OTHER = Device("gpu", "cuda:90", "NVIDIA H200")
TASKS = [Task(name, "bfloat16", 30) for name in ("causal", "gla", "mamba")]
TEXTS = [task.text for task in TASKS]


def result(spec, device=HERE, time_us=10.0):
    key = Key(spec, "ab" * 32, "bfloat16", {"D": 64}, {"T": 4096}, device)
    return Result(key, {"block_rows": 16}, time_us)


@pytest.fixture
def place(tmp_path):
    return str(tmp_path / "fleet")


def queue(place, device=HERE):
    return Queue(open_storage(place), device)


def work(place):
    """As one machine does: offer, then take until nothing is left."""
    own, done = queue(place), []
    own.offer(TASKS)
    while (taken := own.take()) is not None:
        done.append(taken[1].text)
        own.finish(taken[0], result(taken[1].spec))
    return done


def test_machines_share_tasks_and_each_is_done_once(place):
    queue(place)
    with ThreadPoolExecutor(3) as machines:
        done = [text for texts in machines.map(work, [place] * 3) for text in texts]
    assert sorted(done) == sorted(TEXTS)
    assert sorted(found.key.spec for found in fleet_results(open_storage(place))) == [
        "causal", "gla", "mamba",
    ]  # fmt: skip
    assert work(place) == []  # nothing is done again


def test_machines_share_tasks_in_postgresql(postgresql):
    test_machines_share_tasks_and_each_is_done_once(postgresql)


def test_each_kind_of_device_has_its_own_tasks(place):
    assert len(work(place)) == 3
    own = queue(place, OTHER)
    own.offer(TASKS[:1])
    trial, task = own.take()
    own.finish(trial, result(task.spec, OTHER))
    devices = [found.key.device for found in fleet_results(open_storage(place))]
    assert sorted(d.kind for d in devices) == ["cpu", "cpu", "cpu", "gpu"]


def test_what_is_given_back_is_taken_up_and_what_failed_is_not(place):
    own = queue(place)
    own.offer(TASKS[:2])
    trial, task = own.take()
    own.give_back(trial)
    other, failing = own.take()
    own.fail(other, "no kernel")
    assert own.take() is None
    again = queue(place)
    again.offer(TASKS[:2])
    assert again.take()[1] == task
    assert again.take() is None
    assert failing != task
