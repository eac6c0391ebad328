"""Kernels built with the address and undefined-behaviour sanitisers, at awkward sizes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixc.backends.cpu.build import find_compiler
from mixc.compiler.language.find import library

# Windows and grouped heads, a generated block table, a search in sorted ids, a running sum;
# with MIXC_SANITIZE=all the whole library, in both precisions.
SPECS = [
    ("alibi_window", "bfloat16"),
    ("bigbird", "float32"),
    ("packed", "bfloat16"),
    ("fox", "float32"),
]
if os.environ.get("MIXC_SANITIZE") == "all":
    SPECS = [(path.stem, dtype) for path in library() for dtype in ("float32", "bfloat16")]
FLAGS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
SCRIPT = f"""
import sys, torch
from mixc.autotune.sampling import sample_inputs, default_sizes
from mixc.backends.cpu.run import CpuRunner
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower

torch.set_num_threads(1)
mixer = load_file(find_spec(sys.argv[1]))
run = CpuRunner(mixer, lower, flags={FLAGS!r})
for variant in ("standard", "one token"):
    inputs = sample_inputs(mixer, default_sizes(mixer, variant), getattr(torch, sys.argv[2]))
    for result in run(inputs).values():
        assert not result.isnan().any()
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


@pytest.mark.timeout(400)  # torch itself takes its time under a sanitiser
@pytest.mark.parametrize(("spec", "dtype"), SPECS)
def test_nothing_is_reported(spec: str, dtype: str) -> None:
    asan = _library("libasan.so")
    if not Path(asan).is_absolute():
        pytest.skip("this compiler has no address sanitiser")
    environment = {
        **os.environ,
        "LD_PRELOAD": f"{asan} {_library('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, spec, dtype],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "runtime error" not in done.stderr
    assert done.stdout.strip() == "clean"
