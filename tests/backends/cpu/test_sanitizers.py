"""Kernels built with the address and undefined-behaviour sanitisers, at awkward sizes.

The whole library: each spec in one precision, every second one in the other; recurrences row by
row and in chunks. With MIXC_SANITIZE=all every spec in both precisions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixc.backends.cpu.build import find_compiler
from mixc.compiler.language.find import library

SHARDS = 6
DTYPES = ("float32", "bfloat16")
CASES = [
    (path.stem, dtype)
    for place, path in enumerate(library())
    for number, dtype in enumerate(DTYPES)
    if place % 2 == number or os.environ.get("MIXC_SANITIZE") == "all"
]
# Without optimisation a build takes a second, and checks all the same.
FLAGS = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
SCRIPT = f"""
import os, sys, torch
del os.environ["LD_PRELOAD"]  # the compiler needs no sanitiser
from mixc.autotune.sampling import sample_inputs, default_sizes
from mixc.backends.cpu.run import CpuRunner
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.mixer import Recurrence

torch.set_num_threads(1)
for case in sys.argv[1:]:
    spec, dtype = case.split(":")
    mixer = load_file(find_spec(spec))
    walks = any(isinstance(stage, Recurrence) for stage in mixer.stages)
    for by_rows in (1, 0) if walks else (1,):
        print(case, by_rows, flush=True)
        run = CpuRunner(mixer, lower, configuration={{"by_rows": by_rows}}, flags={FLAGS!r})
        for variant in ("standard", "one token"):
            inputs = sample_inputs(mixer, default_sizes(mixer, variant), getattr(torch, dtype))
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


@pytest.mark.timeout(600)  # torch itself takes its time under a sanitiser
@pytest.mark.parametrize("shard", range(SHARDS))
def test_nothing_is_reported(shard: int) -> None:
    asan = _library("libasan.so")
    if not Path(asan).is_absolute():
        pytest.skip("this compiler has no address sanitiser")
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{asan} {_library('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0",
    }
    cases = [f"{spec}:{dtype}" for spec, dtype in CASES[shard::SHARDS]]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *cases],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    last = "\n".join(done.stdout.splitlines()[-2:])
    assert done.returncode == 0, f"{last}\n{done.stderr[-3000:]}"
    assert "runtime error" not in done.stderr, last
    assert done.stdout.endswith("clean\n")
