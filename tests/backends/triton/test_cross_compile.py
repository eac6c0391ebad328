"""The binaries of a hand-written flash attention on every target, and compilers that fail."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mixc.backends.triton.binary_report import KernelReport, read_binary
from mixc.backends.triton.cross_compile import (
    Argument,
    CompileWorkers,
    KernelSignature,
    cross_compile,
)
from mixc.ir.targets import TARGETS, parse_target

FLASH = '''
import triton
import triton.language as tl


@triton.jit
def flash(q, k, v, o, scale, T, stride_qb, stride_qi, stride_kb, stride_kj, stride_vb, stride_vj,
          stride_ob, stride_oi, D: tl.constexpr, BLOCK_I: tl.constexpr, BLOCK_J: tl.constexpr):
    """Causal attention, o = softmax(scale * q k^T) v, for one block of queries."""
    i0 = tl.program_id(0) * BLOCK_I
    b = tl.program_id(1).to(tl.int64)
    i = i0 + tl.arange(0, BLOCK_I)[:, None]
    d = tl.arange(0, D)[None, :]
    q_ID = tl.load(q + b * stride_qb + i * stride_qi + d, mask=i < T, other=0.0)
    max_I = tl.full([BLOCK_I], float("-inf"), tl.float32)
    total_I = tl.zeros([BLOCK_I], tl.float32)
    o_ID = tl.zeros([BLOCK_I, D], tl.float32)
    for j0 in range(0, tl.minimum(i0 + BLOCK_I, T), BLOCK_J):
        j = j0 + tl.arange(0, BLOCK_J)
        row = j[:, None]
        k_JD = tl.load(k + b * stride_kb + row * stride_kj + d, mask=row < T, other=0.0)
        s_IJ = tl.dot(q_ID, tl.trans(k_JD)) * (scale * 1.4426950408889634)
        s_IJ = tl.where((j[None, :] <= i) & (j[None, :] < T), s_IJ, float("-inf"))
        new_max_I = tl.maximum(max_I, tl.max(s_IJ, 1))
        w_IJ = tl.exp2(s_IJ - new_max_I[:, None])
        shrink_I = tl.exp2(max_I - new_max_I)
        total_I = total_I * shrink_I + tl.sum(w_IJ, 1)
        v_JD = tl.load(v + b * stride_vb + row * stride_vj + d, mask=row < T, other=0.0)
        o_ID = tl.dot(w_IJ.to(v_JD.dtype), v_JD, o_ID * shrink_I[:, None])
        max_I = new_max_I
    o_ID = (o_ID / total_I[:, None]).to(o.dtype.element_ty)
    tl.store(o + b * stride_ob + i * stride_oi + d, o_ID, mask=i < T)
'''


def flash_signature(block_i: int = 64, block_j: int = 64, dim: int = 64) -> KernelSignature:
    pointers = tuple(Argument(name, "*bf16", divisible_by_16=True) for name in "qkvo")
    strides = tuple(
        Argument(f"stride_{axes}", "i32", divisible_by_16=True)
        for axes in ("qb", "qi", "kb", "kj", "vb", "vj", "ob", "oi")
    )
    blocks = {"D": dim, "BLOCK_I": block_i, "BLOCK_J": block_j}
    constants = tuple(Argument(name, "constexpr", value) for name, value in blocks.items())
    scalars = (Argument("scale", "fp32"), Argument("T", "i32"))
    return KernelSignature("flash", pointers + scalars + strides + constants)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CompileWorkers]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TRITON_INTERPRET", "1")  # as in a process that runs the interpreter
        with CompileWorkers() as workers:
            yield workers


@pytest.fixture(scope="module")
def reports(workers: CompileWorkers) -> dict[str, KernelReport]:
    found = workers.compile(FLASH, [flash_signature()], TARGETS)
    assert [report.target for report in found] == [target.name for target in TARGETS]
    return {report.target: report for report in found}


@pytest.mark.parametrize("name", [target.name for target in TARGETS])
def test_flash_attention_compiles_for_every_target(
    reports: dict[str, KernelReport], name: str
) -> None:
    report, target = reports[name], parse_target(name)
    assert report.error is None
    assert report.note is None
    assert report.registers is not None
    assert 32 <= report.registers <= target.registers_per_thread
    assert report.spilled_bytes == 0
    assert report.shared_bytes is not None
    assert 64 * 64 * 2 <= report.shared_bytes <= target.shared_memory_bytes
    assert report.tensor_core_instructions
    assert report.async_copies is not None
    assert (report.async_copies > 0) == (target.backend == "cuda")
