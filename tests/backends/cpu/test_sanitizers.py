"""Kernels built with the address and undefined-behaviour sanitisers.

A sample of the library: at awkward sizes or at one that people use, with the default knobs or with
some that a search may choose; recurrences row by row and in chunks. With MIXC_SANITIZE=all
(``make sanitize``, hours) every spec in both precisions at all of those sizes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixc.backends.cpu.build import find_compiler
from mixc.compiler.language.find import library

DTYPES = ("float32", "bfloat16")
SIZES = (0, 16, 40, 64, 80, 96, 128, 192, 256)  # of features; 0: awkward ones
WHOLE = os.environ.get("MIXC_SANITIZE") == "all"
SHARDS = 8 if WHOLE else 2
# spec, precision, size of features, seed of the knobs (0: the default)
SAMPLED = [
    (path.stem, DTYPES[place % 2], SIZES[place % len(SIZES)], place % 3)
    for place, path in enumerate(library()[::12])
]
ALL = [
    (path.stem, dtype, size, seed)
    for path in library()
    for dtype in DTYPES
    for size in SIZES
    for seed in ((0, size) if size else (0,))
]
CASES = ALL if WHOLE else SAMPLED
# Without optimisation a build takes a second, and checks all the same.
FLAGS = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
SCRIPT = f"""
import os, random, sys, torch
del os.environ["LD_PRELOAD"]  # the compiler needs no sanitiser
from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.cpu.build import find_compiler
from mixc.backends.cpu.configure import knobs, knobs_of_stages, refusal
from mixc.backends.cpu.run import CpuRunner
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.mixer import Recurrence

torch.set_num_threads(1)

def chosen(mixer, seed):
    target, draw = find_compiler().target, random.Random(seed)
    while seed:
        every = (*knobs(target), *knobs_of_stages(mixer))
        found = {{k.name: draw.choice(k.choices) for k in every}}
        if refusal(found, target) is None:
            return found
    return {{}}

for case in sys.argv[1:]:
    spec, dtype, size, seed = case.split(":")
    mixer = load_file(find_spec(spec))
    walks = any(isinstance(stage, Recurrence) for stage in mixer.stages)
    trials = ["standard", "one token"]
    if int(size):
        lengths = (1, 2, 16, 17, 100)
        trials = [Proportions((n,), (int(size),), 2, 1, (1, 2), min(13, n)) for n in lengths]
    for by_rows in (1, 0) if walks else (1,):
        print(case, by_rows, flush=True)
        configuration = {{**chosen(mixer, int(seed)), "by_rows": by_rows}}
        run = CpuRunner(mixer, lower, configuration=configuration, flags={FLAGS!r})
        for trial in trials:
            inputs = sample_inputs(mixer, default_sizes(mixer, trial), getattr(torch, dtype))
            run(inputs)
print("clean")
"""


def _library(name: str) -> str:
    done = subprocess.run(
        [find_compiler().path, f"-print-file-name={name}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def _sanitized(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What Python makes of a script where the sanitisers' libraries are loaded."""
    asan = _library("libasan.so")
    if not Path(asan).is_absolute():
        pytest.skip("this compiler has no address sanitiser")
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{asan} {_library('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0",
    }
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


@pytest.mark.timeout(20_000 if WHOLE else 600)  # torch itself takes its time under a sanitiser
@pytest.mark.parametrize("shard", range(SHARDS))
def test_nothing_is_reported(shard: int) -> None:
    done = _sanitized(SCRIPT, *(":".join(map(str, case)) for case in CASES[shard::SHARDS]))
    last = "\n".join(done.stdout.splitlines()[-2:])
    assert done.returncode == 0, f"{last}\n{done.stderr[-3000:]}"
    assert "runtime error" not in done.stderr, last
    assert done.stdout.endswith("clean\n")


PLANTED = f"""
import os
from dataclasses import replace
del os.environ["LD_PRELOAD"]
from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.cpu.configure import configure, defaults
from mixc.backends.cpu.run import run_plan
from mixc.ir.targets import AVX2
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower

mixer = load_file(find_spec("gla"))
sizes = default_sizes(mixer, Proportions((3,), (128,), 1, 1, (1,), 3))
plan = lower(mixer, sizes, "float32", recurrence="loop")
plan = configure(plan, defaults(AVX2))
program = replace(plan.kernels[0].program.with_blocks({{"E": 48}}), promises=())
plan = replace(plan, kernels=(replace(plan.kernels[0], program=program),))
run_plan(plan, sample_inputs(mixer, sizes), sizes, flags={FLAGS!r})
"""


def test_a_block_that_does_not_divide_is_reported() -> None:
    """The fault that the promises forbid, planted: states of 128 x 128 in blocks of 48."""
    done = _sanitized(PLANTED)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
