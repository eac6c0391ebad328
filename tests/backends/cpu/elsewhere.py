"""Kernels as CPUs that are not here would get them: whether a C++ compiler takes their text."""

from __future__ import annotations

import platform
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from mixc.backends.cpu.build import FLAGS, find_compiler
from mixc.backends.cpu.configure import configure, defaults
from mixc.backends.cpu.emit import emit_source
from mixc.ir.plan import Plan
from mixc.ir.targets import AVX2, AVX512, AVX512_AMX, AVX512_BF16, PORTABLE, CpuTarget

# What tells a compiler on x86-64 to write for each.
ARCHITECTURES: Mapping[CpuTarget, str] = {
    PORTABLE: "x86-64",
    AVX2: "haswell",
    AVX512: "skylake-avx512",
    AVX512_BF16: "cooperlake",
    AVX512_AMX: "sapphirerapids",
}


@cache
def knows(target: CpuTarget) -> bool:
    """Whether the compiler here writes for it."""
    return not _faults("int a;", target) and platform.machine() == "x86_64"


def faults_elsewhere(plan: Plan, target: CpuTarget) -> str:
    """What the compiler finds wrong in a plan's kernels in their default configuration."""
    named = replace(target, macros=find_compiler().target.macros)  # no names of kernels
    return _faults(emit_source(configure(plan, defaults(target), {}), named).text, target)


def _faults(text: str, target: CpuTarget) -> str:
    compiler = find_compiler()
    flags = [flag for flag in FLAGS if not flag.startswith(("-march", "-mcpu", "-shared", "-O"))]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.cpp"
        source.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [
                compiler.path,
                *flags,
                "-O1",
                f"-march={ARCHITECTURES[target]}",
                "-fsyntax-only",
                source,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    return "\n".join(line for line in done.stderr.splitlines() if "error" in line)[:1000]
