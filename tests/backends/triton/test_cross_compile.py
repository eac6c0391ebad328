"""The binaries of a hand-written flash attention on every target, and compilers that fail."""

from __future__ import annotations

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


# Five sums of 128 x 128 at once.
WIDE = """
import triton
import triton.language as tl

@triton.jit
def wide(x, o, n):
    i = tl.arange(0, 128)
    place = i[:, None] * 128 + i[None, :]
    a = tl.zeros([128, 128], tl.float32)
    b = tl.zeros([128, 128], tl.float32)
    c = tl.zeros([128, 128], tl.float32)
    d = tl.zeros([128, 128], tl.float32)
    e = tl.zeros([128, 128], tl.float32)
    for t in range(n):
        y = tl.load(x + t * 16384 + place)
        z = tl.load(x + (t + n) * 16384 + place)
        a = tl.dot(y, z, a)
        b = tl.dot(y, tl.trans(z), b)
        c = tl.dot(tl.trans(y), z, c)
        d = tl.dot(z, y, d)
        e = tl.dot(z, tl.trans(y), e)
    tl.store(o + place, a * b + c * d + e)
"""


def flash_signature(block_i: int = 64, block_j: int = 64, dim: int = 64) -> KernelSignature:
    pointers = tuple(Argument(name, "*bf16", divisible_by_16=True) for name in "qkvo")
    strides = tuple(
        Argument(f"stride_{axes}", "i32", divisible_by_16=True)
        for axes in ("qb", "qi", "kb", "kj", "vb", "vj", "ob", "oi")
    )
    blocks = {"D": dim, "BLOCK_I": block_i, "BLOCK_J": block_j}
    constants = tuple(Argument(name, "constexpr", value) for name, value in blocks.items())
    scalars = (Argument("scale", "fp32"), Argument("T", "i32"))
    arguments = pointers + scalars + strides + constants
    return KernelSignature("flash", arguments, num_warps=4, num_stages=2, max_registers=255)


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


def test_reports_take_the_json_form_of_the_command_line(reports: dict[str, KernelReport]) -> None:
    report = reports["cuda:90"]
    assert report.as_dict() == {
        "name": "flash",
        "target": "cuda:90",
        "registers": report.registers,
        "spilled_bytes": 0,
        "shared_bytes": report.shared_bytes,
        "tensor_core_instructions": report.tensor_core_instructions,
        "async_copies": report.async_copies,
    }


def test_spilled_registers_are_counted(workers: CompileWorkers) -> None:
    crowded = flash_signature(block_i=128, block_j=128, dim=128)
    (report,) = workers.compile(FLASH, [crowded], [parse_target("cuda:90")])
    assert report.spilled_bytes is not None
    assert report.spilled_bytes > 64


def test_shared_memory_beyond_the_target_is_an_error_with_numbers(workers: CompileWorkers) -> None:
    deep = replace(flash_signature(), num_stages=9)
    (report,) = workers.compile(FLASH, [deep], [parse_target("cuda:120")])
    assert report.error is not None
    assert f"needs {report.shared_bytes} bytes of shared memory" in report.error
    assert "cuda:120 has 101376 per block" in report.error


def test_tensor_memory_beyond_the_target_is_an_error_with_numbers(workers: CompileWorkers) -> None:
    """Triton gives a kernel that does nothing but stop."""
    arguments = (Argument("x", "*bf16", divisible_by_16=True), Argument("o", "*fp32"))
    wide = KernelSignature("wide", (*arguments, Argument("n", "i32")), num_warps=8, num_stages=2)
    (report,) = workers.compile(WIDE, [wide], [parse_target("cuda:100")])
    assert report.error is not None
    assert "needs 640 columns of tensor memory, cuda:100 has 512" in report.error


def test_an_unaligned_stride_is_seen_to_stop_the_pipeline(workers: CompileWorkers) -> None:
    signature = flash_signature()
    arguments = tuple(replace(it, divisible_by_16=False) for it in signature.arguments)
    unaligned = replace(signature, arguments=arguments)
    (report,) = workers.compile(FLASH, [unaligned], [parse_target("cuda:90")])
    assert report.error is None
    assert report.async_copies == 0


# What a source does to its compiler, and what the report then says.
FAILURES = {
    "abort": ("import os\nos.abort()\n", "the compiler aborted: SIGABRT"),
    "exit": ("import os\nos._exit(3)\n", "the compiler aborted: exit code 3"),
    "last words": (
        "import os\nos.write(2, b'Assertion failed: layout')\nos.abort()",
        "SIGABRT\nAssertion failed: layout",
    ),
    "no such kernel": ("import triton\n", "the source has no Triton kernel 'flash'"),
    "other arguments": (FLASH.replace("scale, T,", "scale, length,"), "its signature has (q, k"),
    "type error": (FLASH.replace("tl.trans(k_JD)", "tl.trans(d)"), "CompilationError: at "),
    "bad syntax": ("def flash(:\n", "SyntaxError"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_compiler_gives_a_report_and_the_next_job_works(
    workers: CompileWorkers, failure: str
) -> None:
    source, message = FAILURES[failure]
    (failed,) = workers.compile(source, [flash_signature()], [parse_target("cuda:90")])
    assert failed.error is not None
    assert message in failed.error
    assert failed.registers is None
    assert failed.as_dict()["error"] == failed.error
    (report,) = workers.compile(FLASH, [flash_signature()], [parse_target("cuda:90")])
    assert report.error is None


def test_an_endless_compile_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    source = (
        "import subprocess\n"
        f"open({str(child)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))\n"
        "while True: pass\n"
    )
    start = time.monotonic()
    (report,) = cross_compile(
        source, [flash_signature()], [parse_target("cuda:90")], time_limit_s=5.0
    )
    assert time.monotonic() - start < 30
    assert report.error == "the compiler was stopped: it ran past its limit of 5 s"
    # It is killed with the compiler, and nobody waits for it: it may take a moment to be gone.
    end = time.monotonic() + 20
    while _runs(int(child.read_text())):
        assert time.monotonic() < end, "what the compiler started still runs"
        time.sleep(0.05)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_triton_that_cannot_be_imported_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "triton.py").write_text("raise ImportError('triton was built for another CPU')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (report,) = cross_compile(FLASH, [flash_signature()], [parse_target("cuda:90")])
    assert report.error is not None
    assert report.error.startswith("the compiler aborted: exit code 1\n")
    assert "triton was built for another CPU" in report.error


def test_the_worker_prints_nothing_into_our_output(
    workers: CompileWorkers, capfd: pytest.CaptureFixture[str]
) -> None:
    noisy = "print('noise')\n" + FLASH
    (report,) = workers.compile(noisy, [flash_signature()], [parse_target("cuda:90")])
    assert report.error is None
    assert capfd.readouterr() == ("", "")


PTX = """
    cp.async.cg.shared.global [%r1], [%rd1], 16;
    cp.async.commit_group;
    wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
    @%p1 tcgen05.mma.cta_group::1.kind::f16
"""


LOG = """
ptxas info    : Compiling entry function 'flash' for 'sm_90a'
ptxas info    : Function properties for flash
    64 bytes stack frame, 24 bytes spill stores, 40 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 64 bytes cumulative stack size
"""


def test_the_log_tells_spills_from_arrays_on_the_stack() -> None:
    target = parse_target("cuda:90")
    report = read_binary("flash", target, 1024, {"ptx": PTX, "cubin": b""}, LOG, None)
    assert report.registers == 255
    assert report.spilled_bytes == 40


def test_without_the_binary_tools_the_ptx_is_counted_and_the_report_says_so() -> None:
    target = parse_target("cuda:90")
    report = read_binary("flash", target, 1024, {"ptx": PTX, "cubin": b""}, "", None)
    assert report.tensor_core_instructions == 3
    assert report.async_copies == 1
    assert report.registers is None
    assert report.note == (
        "no log of ptxas: registers and spills unknown; "
        "no nvdisasm: instructions counted in the PTX text"
    )


AMDGCN = """
\tbuffer_load_dwordx4 v[0:3], v4, s[0:3], 0 offen
\tbuffer_load_dword v4, s[0:3], 0 offen lds
\tglobal_load_lds_dwordx4 v[2:3], off
\tv_mfma_f32_32x32x8_bf16_1k v[0:15], v[16:17], v[18:19], v[0:15]
    .vgpr_count:     178
    .vgpr_spill_count: 3
"""


def test_the_amd_text_is_read() -> None:
    report = read_binary("flash", parse_target("hip:gfx942"), 4096, {"amdgcn": AMDGCN}, "", None)
    assert report == KernelReport("flash", "hip:gfx942", 178, 12, 4096, 1, 2)
