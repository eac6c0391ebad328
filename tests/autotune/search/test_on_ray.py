"""Trials on a Ray cluster: two nodes on this machine, each with a core and a place for trials."""

import pytest

from mixc.autotune.checking.shapes import CPU_PROPORTIONS, checked_sizes, timed_sizes
from mixc.autotune.results.stored import stored_results
from mixc.autotune.search.trial import Job, Problem
from mixc.autotune.search.tune import tune
from mixc.compiler.language.load import load_text
from mixc.ir.errors import ArgumentError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'mixc[ray]'")
SPEC = """\
mixer: tiny
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E]}
dims: {I: T, J: T}
tiling: {block_i: [32], block_j: [32]}
attention: {over: J, score: "sum(q * k, D)", mask: j <= i, normalize: softmax, output: {o: v}}
outputs: {o: [B, H, I, E]}
"""
TRIALS = 4


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    from ray.cluster_utils import Cluster as Nodes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIXC_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setenv("MIXC_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        nodes = Nodes(initialize_head=True, head_node_args=head)
        nodes.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        yield nodes.address
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture
def cluster(address):
    from mixc.autotune.search.on_ray import Cluster

    with Cluster(address, "cpu", time_limit_s=120.0) as made:
        yield made


def problem():
    mixer = load_text(SPEC)
    sizes = timed_sizes(mixer, CPU_PROPORTIONS, {"T": 40, "D": 16, "E": 16, "H": 2})
    return Problem(mixer, "float32", "cpu", sizes, checked_sizes(mixer, sizes))


def test_a_search_has_as_many_trials_open_as_there_are_places(cluster):
    assert cluster.size == 2
    most, seen = 0, []
    trying = cluster.trying(lambda number, chosen, best_us: Job(problem(), (chosen,), number))
    cluster.trying = lambda job_of: trying
    begin, end = trying.start, trying.ended

    def start(number, configuration, best_us):
        nonlocal most
        begin(number, configuration, best_us)
        most = max(most, len(trying._running))

    def ended():
        number, outcome = end()
        seen.append(outcome.status)
        return number, outcome

    trying.start, trying.ended = start, ended
    tuned = tune(problem(), TRIALS, cluster=cluster, seed=0)
    assert most == 2
    assert len(seen) == len(tuned.history.trials) == TRIALS
    assert set(seen) <= {"ok", "hopeless"}
    assert tuned.result.time_us > 0
    assert 0 < tuned.result.error <= tuned.result.limit
    assert next(result for _, result in stored_results()) == tuned.result


def test_a_place_that_is_lost_fails_its_trial_and_the_search_goes_on(cluster):
    configuration = {"block_rows": 32, "block_keys": 32}
    trying = cluster.trying(lambda number, chosen, best_us: Job(problem(), (chosen,), number))
    trying.start(0, configuration, None)
    ray.kill(next(place for _, place in trying._running.values()))
    number, outcome = trying.ended()
    assert (number, outcome.status, trying.at_once) == (0, "failed", 1)
    assert "Ray lost the place" in outcome.message
    trying.start(1, configuration, None)
    assert trying.ended()[1].status == "ok"


def test_no_gpu_in_the_cluster_is_said(address):
    from mixc.autotune.search.on_ray import Cluster

    with pytest.raises(ArgumentError, match="no node with a cuda device"):
        Cluster(address, "cuda")
