"""Kernels as other CPUs would get them, run on this one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mixc.autotune.checking.checking import verify
from mixc.autotune.checking.sampling import verification_cases
from mixc.backends.cpu.build import find_compiler
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.cpu.target import (
    AVX2,
    AVX512,
    AVX512_AMX,
    AVX512_BF16,
    NEON,
    PORTABLE,
    CpuTarget,
    first_cache_bytes,
    target_of_macros,
)
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower

from .elsewhere import faults_elsewhere, knows

AVX512_MACROS = ["AVX512F", "AVX512BW", "AVX512DQ", "AVX512VL", "AVX2", "FMA"]


def macros(names: list[str]) -> str:
    return "\n".join(f"#define __{name}__ 1" for name in names)


@pytest.mark.parametrize(
    ("names", "target"),
    [
        (["x86_64", "SSE2"], PORTABLE),
        (["AVX2"], PORTABLE),
        (["AVX2", "FMA"], AVX2),
        (AVX512_MACROS, AVX512),
        ([*AVX512_MACROS, "AVX512BF16"], AVX512_BF16),
        ([*AVX512_MACROS, "AVX512BF16", "AMX_TILE"], AVX512_BF16),
        ([*AVX512_MACROS, "AVX512BF16", "AMX_TILE", "AMX_BF16"], AVX512_AMX),
    ],
)
def test_target_by_the_compilers_macros(names: list[str], target: CpuTarget) -> None:
    assert target_of_macros(macros(names)) == target


def test_neon() -> None:
    assert target_of_macros("#define __ARM_NEON 1") == NEON


# Each has all that those before it have.
KINDS = [PORTABLE, AVX2, AVX512, AVX512_BF16, AVX512_AMX]


def _flags(target: CpuTarget) -> tuple[str, ...]:
    here = find_compiler().target
    if here not in KINDS or KINDS.index(target) > KINDS.index(here):
        pytest.skip(f"this CPU is no {target.name}")
    return ("-mno-avx512f",) if target in KINDS[:2] and here in KINDS[2:] else ()


@pytest.mark.parametrize("target", KINDS, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kernels_of_other_targets(target: CpuTarget, dtype: torch.dtype) -> None:
    mixer = load_file(find_spec("alibi_window"))
    run = CpuRunner(mixer, lower, target=target, flags=_flags(target))
    trials = [c for c in verification_cases(mixer) if not c.params and c.name != "several blocks"]
    cases = verify(mixer, {"cpu": lambda _, x, params: run(x, params)}, [dtype], cases=trials)
    assert {case.name: case.message for case in cases if not case.ok} == {}


# A value that is made beside products of 16 bits, rows in memory or copied: two rows at a time.
MADE_VALUES = """
mixer: made_values
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E], x: [B, E], y: [B, H, J, D]}
dims: {I: T, J: T}
attention: {over: J, score: "sum(q * (k + y), D)", mask: j <= i, output: {o: v + x}}
outputs: {o: [B, H, I, E]}
"""


@pytest.mark.parametrize("target", KINDS, ids=lambda t: t.name)
def test_every_target_has_a_text_that_compiles(target: CpuTarget) -> None:
    if not knows(target):
        pytest.skip(f"the compiler writes nothing for {target.name}")
    mixer = load_text(MADE_VALUES)
    for made in (mixer, differentiate(mixer).backward):
        for dtype in ("float32", "bfloat16"):
            plan = lower(made, {"D": 64, "E": 192}, dtype)
            assert faults_elsewhere(plan, target) == "", (made.name, dtype)


@pytest.mark.parametrize("told", [True, False])
def test_the_first_cache_is_as_large_as_the_system_says(tmp_path: Path, told: bool) -> None:
    caches = [("1", "Instruction", "32K"), ("1", "Data", "48K"), ("2", "Unified", "2048K")]
    for number, entry in enumerate(caches if told else caches[:1]):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in zip(("level", "type", "size"), entry, strict=True):
            (folder / name).write_text(f"{text}\n")
    assert first_cache_bytes(tmp_path) == (48 << 10 if told else None)
