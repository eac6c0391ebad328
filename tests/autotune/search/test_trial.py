"""What goes wrong in a trial, each planted into the kernel by a compiler of our own."""

import os
import shutil
import stat
from dataclasses import replace

import pytest

from mixc.autotune.checking.checking import Case
from mixc.autotune.checking.shapes import CPU_PROPORTIONS, checked_sizes, timed_sizes
from mixc.autotune.search.backward import backward_problem
from mixc.autotune.search.trial import Job, Problem, TrialWorker
from mixc.autotune.search.worker import capped
from mixc.compiler.language.load import load_text

SPEC = """\
mixer: tiny
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E]}
dims: {I: T, J: T}
attention: {over: J, score: "sum(q * k, D)", mask: j <= i, normalize: softmax, output: {o: v}}
outputs: {o: [B, H, I, E]}
"""
# A compiler that changes the entry point of kernels by their blocks, then compiles them.
COMPILER = """\
#!/bin/sh
for word in "$@"; do case "$word" in */kernel.cpp) source="$word";; esac; done
plant() { sed -i "s/^extern .*mixc_tiny.*{$/& $1/" "$source"; }
if [ -n "$source" ]; then
  case "$(grep -o 'BLOCK_[IJ] = [0-9]*[,.]' "$source" | tr -dc '0-9\\n' | tr '\\n' ' ')" in
    "16 32 ") plant "__builtin_trap();";;
    "16 64 ") plant "for (volatile int on = 1; on;) {}";;
    "16 128 "*) plant "return;";;
    "16 256 ") plant "tiny_o(args, threads); ((float*)args[0])[85] += 0.5f; return;";;
    "32 64 ") plant "for (;;) { static volatile char* kept; kept = new char[1l << 30]; }";;
    "64 32 ") echo "no such thing;" >> "$source";;
  esac
fi
exec REAL "$@" -O0
"""
GOOD = {"block_rows": 32, "block_keys": 32}
CRASH = {"block_rows": 16, "block_keys": 32}
HANG = {"block_rows": 16, "block_keys": 64}
SILENT = {"block_rows": 16, "block_keys": 128}  # returns, and has written nothing
WRONG = {"block_rows": 16, "block_keys": 256}  # changes a number of the result
GREEDY = {"block_rows": 32, "block_keys": 64}  # takes memory until there is none
BROKEN = {"block_rows": 64, "block_keys": 32}  # is refused by the compiler


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """One worker for all tests, as in a search; it is replaced where a kernel brings it down."""
    real = shutil.which("g++") or shutil.which("c++")
    if real is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("trial")
    path = folder / "compiler"
    path.write_text(COMPILER.replace("REAL", real))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", str(path))
        patch.setenv("MIXC_CACHE", str(folder / "cache"))
        with TrialWorker(120.0) as trial_worker:
            yield trial_worker


def problem(length=40):
    mixer = load_text(SPEC)
    sizes = timed_sizes(mixer, CPU_PROPORTIONS, {"T": length, "D": 16, "E": 16, "H": 2})
    return Problem(mixer, "float32", "cpu", sizes, checked_sizes(mixer, sizes))


def outcome(worker, configuration, **settings):
    (found,) = worker.run(Job(problem(), (configuration,), seed=3, **settings))
    return found


def test_a_right_kernel_is_checked_and_timed(worker):
    found = outcome(worker, GOOD)
    assert found.status == "ok", found.message
    assert found.time_us > 0
    assert 0 < found.error <= found.limit


def test_outputs_that_are_not_written_are_wrong(worker):
    found = outcome(worker, SILENT)
    assert found.status == "failed"
    assert "wrong: o: nan instead of" in found.message


def test_a_wrong_number_is_wrong(worker):
    found = outcome(worker, WRONG)
    assert found.status == "failed"
    assert "wrong: o: error" in found.message


def test_a_backward_pass_is_tried_on_what_its_forward_pass_keeps(worker):
    backward = backward_problem(problem())
    assert "o_lse" in {i.name for i in backward.mixer.inputs}
    apart = {"one_sweep": 0}  # a kernel of either block for keys' and for queries' gradients
    good, silent = worker.run(Job(backward, (GOOD | apart, SILENT | apart)))
    assert good.status == "ok", good.message
    assert 0 < good.error <= good.limit
    assert silent.status == "failed"
    assert "wrong: d_" in silent.message


def test_a_limit_that_admits_anything_is_capped():
    case = Case("kernels", "bfloat16", {}, error=0.3, limit=2.0)
    assert capped(case).message == "error 0.3, limit 0.1"
    assert capped(replace(case, error=0.01)).ok
    assert capped(replace(case, error=0.01)).limit == 0.1
    assert capped(replace(case, limit=0.02)).limit == 0.02


def test_a_build_that_fails_says_why(worker):
    found = outcome(worker, BROKEN)
    assert found.status == "failed"
    assert "refuses a kernel" in found.message
    assert "error" in found.message


def test_what_is_hopeless_is_given_up(worker):
    found = outcome(worker, GOOD, hopeless_us=0.001)
    assert found.status == "hopeless"
    assert found.time_us > 0.001


def test_a_race_times_each_and_fails_the_bad(worker):
    good, bad = worker.run(Job(problem(), (GOOD, SILENT)))
    assert (good.status, bad.status) == ("ok", "failed")
    assert len(good.times_us) >= 5  # though the other dropped out


def test_a_crash_fails_its_trial_and_no_other(worker):
    found = outcome(worker, CRASH)
    assert found.status == "failed"
    assert "crashed: SIG" in found.message
    assert outcome(worker, GOOD).status == "ok"


def test_a_kernel_that_takes_all_memory_fails_its_trial_and_no_other(worker):
    found = outcome(worker, GREEDY)
    assert found.status == "failed"
    assert "crashed: SIGABRT" in found.message
    assert "bad_alloc" in found.message
    assert outcome(worker, GOOD).status == "ok"


def test_a_hang_is_stopped(worker):
    usual, worker.worker.time_limit_s = worker.worker.time_limit_s, 10.0
    found = outcome(worker, HANG)
    worker.worker.time_limit_s = usual
    assert found.status == "failed"
    assert "ran past its limit of 10 s" in found.message


def test_a_worker_leaves_nothing_behind():
    with TrialWorker() as worker:
        pid = worker.worker.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
