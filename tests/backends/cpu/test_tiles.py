"""Products by tiles of registers: every shape, forms of operands, and threads that use them."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from mixc.backends.cpu.build import build, find_compiler
from mixc.backends.cpu.configure import chunks_pay, configure, defaults, long_blocks
from mixc.backends.cpu.emit import emit_source, runtime_text, tiles_text
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.cpu.target import permitted
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.roles import feature_dims
from mixc.ir.targets import AVX512, AVX512_AMX, AVX512_BF16

needs_tiles = pytest.mark.skipif(
    find_compiler().target != AVX512_AMX, reason="this CPU has no tiles of registers"
)
SIZES = (16, 32, 48, 80)
STARTS = ("ZERO", "OUT", "ROWS_SCALED", "COLUMNS_SCALED")
BESIDE = 16  # numbers between a row of a and the next, and of b

DOT = """
extern "C" void dot_{m}_{n}_{k}_{start}_{halves}(
    float* out, const void* a, const void* b, const float* s) {{
  const mx::Tiles<{halves}> tiles;
  mx::tile_dot<{halves}, {m}, {n}, {k}, mx::Start::{start}>(
      out, (const uint16_t*)a, {k} + {beside}, 2, (const uint32_t*)b, {n} + {beside}, s);
}}"""
FORMS = """
extern "C" void turn_{m}_{k}(void* rows, const float* x, void* pairs) {{
  mx::make_pairs<{k}, {m}>((uint32_t*)pairs, x, {m}, 1);
  mx::turn_pairs<{m}, {k}>((uint16_t*)rows, (const uint32_t*)pairs);
}}
extern "C" void make_{m}_{k}(void* rows, const float* x, void* pairs) {{
  mx::make_rows<{m}, {k}>((uint16_t*)rows, x, 1, {m});
  mx::make_pairs<{k}, {m}>((uint32_t*)pairs, x, {m}, 1);
}}
extern "C" void load_{m}_{k}(void* rows, const void* x, int columns) {{
  mx::load_turned_rows<{m}, {k}>((uint16_t*)rows, (const mx::bf16*)x, 1, {m}, {m}, columns);
}}"""
MASKED = """
extern "C" void masked(float* out, const void* a, const void* b, int left) {
  const mx::Tiles<false> tiles;
  auto call = left ? mx::masked_tile_dot<false, 32, 32, 32, mx::Start::ZERO, true>
                   : mx::masked_tile_dot<false, 32, 32, 32, mx::Start::ZERO, false>;
  call(out, (const uint16_t*)a, 32, 2, (const uint32_t*)b, 32, nullptr);
}
extern "C" int left_behind(void (*call)(const int64_t*, int), const int64_t* args) {
  mx::TileShapes own(true), found(false);
  own.rows[3] = 5;
  asm volatile("ldtilecfg %0" : : "m"(own));
  call(args, 1);
  asm volatile("sttilecfg %0" : "=m"(found));
  asm volatile("tilerelease");
  return memcmp(&own, &found, 64);
}
"""


def _dots() -> list[tuple[int, int, int, str, str]]:
    shapes = [(m, n, k) for m, n, k in product(SIZES, SIZES, SIZES) if 48 in (m, n, k) or m == k]
    return [
        (m, n, k, STARTS[place % 4], halves)
        for place, (m, n, k) in enumerate(shapes)
        for halves in (("true",) if k % 32 else ("true", "false"))
    ]


@pytest.fixture(scope="module")
def tiles() -> ctypes.CDLL:
    lines = [
        DOT.format(m=m, n=n, k=k, start=start, halves=halves, beside=BESIDE)
        for m, n, k, start, halves in _dots()
    ]
    lines += [FORMS.format(m=m, k=k) for m, k in product(SIZES, SIZES)]
    head = ["#define MIXC_LANES 16", "#define MIXC_PAIRED_DOT", runtime_text(), tiles_text()]
    return ctypes.CDLL(str(build("\n".join([*head, *lines, MASKED]), "tiles", ("-O1",))))


def pairs(b: Tensor) -> Tensor:
    """[k, n] --> [k / 2, n, 2]"""
    return b.view(-1, 2, b.shape[1]).transpose(1, 2).contiguous()


def pointers(*tensors: Tensor) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(t.data_ptr()) for t in tensors]


def beside(x: Tensor, width: int) -> Tensor:
    """Rows with NaN between them, and none after the last: what must not be read."""
    wide = torch.full((len(x), width), torch.nan, dtype=x.dtype)
    wide[:, : x.shape[1]] = x
    return wide


@needs_tiles
def test_no_row_and_no_column_is_left_out(tiles: ctypes.CDLL) -> None:
    generator = torch.Generator().manual_seed(0)
    for m, n, k, start, halves in _dots():
        a = torch.randn(m, k, generator=generator).bfloat16()
        b = torch.randn(k, n, generator=generator).bfloat16()
        out = torch.randn(m, n, generator=generator)
        scale = torch.randn(max(m, n), generator=generator)
        scale[::3] = 1
        before = {"ZERO": 0 * out, "OUT": out, "ROWS_SCALED": out * scale[:m, None]}
        wanted = before.get(start, out * scale[:n]).double() + a.double() @ b.double()
        operands = beside(a, k + BESIDE), beside(pairs(b).view(k // 2, -1), 2 * n + 2 * BESIDE)
        call = getattr(tiles, f"dot_{m}_{n}_{k}_{start}_{halves}")
        call(*pointers(out, *operands, scale))
        torch.testing.assert_close(out.double(), wanted, rtol=0, atol=4e-5)


@needs_tiles
@pytest.mark.parametrize("m", SIZES)
def test_rows_out_of_what_lies_the_other_way_round(tiles: ctypes.CDLL, m: int) -> None:
    for k in SIZES:
        x = torch.randn(k, m)
        for way in ("turn", "make"):
            rows = torch.empty(m, k, dtype=torch.bfloat16)
            made = torch.empty(k // 2, m, 2, dtype=torch.bfloat16)
            getattr(tiles, f"{way}_{m}_{k}")(*pointers(rows, x, made))
            assert torch.equal(rows, x.T.bfloat16())
            assert torch.equal(made, pairs(x.bfloat16()))
        for columns in (k, k - 1, 17, 2):
            few = x[:columns].bfloat16()
            rows = torch.full((m, k), torch.nan, dtype=torch.bfloat16)
            getattr(tiles, f"load_{m}_{k}")(*pointers(rows, few), ctypes.c_int(min(columns, k)))
            assert torch.equal(rows[:, : len(few)], few.T)
            assert not rows[:, len(few) :].any()


@needs_tiles
@pytest.mark.parametrize("left", [True, False])
def test_what_an_operand_masks_may_be_infinite(tiles: ctypes.CDLL, left: bool) -> None:
    a, b = torch.randn(32, 32).bfloat16(), torch.randn(32, 32).bfloat16()
    mask, other = (a, b) if left else (b.T, a.T)
    mask[:, 5] = 0
    wanted = a.double() @ b.double()
    for odd in (torch.inf, -torch.inf, torch.nan):
        other[5, 7] = odd
        out, paired = torch.empty(32, 32), pairs(b)
        tiles.masked(*pointers(out, a, paired), ctypes.c_int(left))
        torch.testing.assert_close(out.double(), wanted, rtol=0, atol=2e-5)
        other[5, 7] = 0


# ------------------------------------------------------------------------------- in a kernel


def attention(length: int = 300) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {n: torch.randn(1, 2, length, 80, generator=generator).bfloat16() for n in "qkv"}


def of_torch(x: dict[str, Tensor]) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(*x.values(), is_causal=True)


@needs_tiles
def test_tiles_are_left_as_they_were_found(tiles: ctypes.CDLL) -> None:
    """Others use them in the same threads: torch, by a configuration of its own."""
    plan = configure(
        lower(load_file(find_spec("causal")), {"D": 64, "E": 64}, "bfloat16"),
        defaults(AVX512_AMX),
    )
    source = emit_source(plan, AVX512_AMX)
    assert "mx::tile_dot<" in source.text
    function = getattr(ctypes.CDLL(str(build(source.text, "causal"))), source.entry)
    empty = (ctypes.c_int64 * sum(source.argument_counts))()
    assert tiles.left_behind(function, empty) == 0


@needs_tiles
def test_torch_and_threads_use_tiles_in_turn() -> None:
    x, run = attention(), CpuRunner(load_file(find_spec("causal")), lower)
    wanted = of_torch({n: t.float() for n, t in x.items()})
    both = (lambda: run(x)["o"], lambda: of_torch(x))
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call) for call in both * 8]
        for call in calls:
            torch.testing.assert_close(call.result().float(), wanted, rtol=0, atol=2e-2)


@needs_tiles
def test_a_knob_leaves_products_to_pairs() -> None:
    x, mixer = attention(64), load_file(find_spec("causal"))
    for knob, has in ((1, True), (0, False)):
        run = CpuRunner(mixer, lower, configuration={"tile_dots": knob})
        assert ("mx::tile_dot<" in run.source({"D": 80, "E": 80}, torch.bfloat16)) is has
        torch.testing.assert_close(run(x)["o"], of_torch(x), rtol=0, atol=2e-2)


def test_blocks_are_long_where_cores_have_enough_to_do() -> None:
    for size, wanted in ((64, {"block_rows": 128}), (128, {"block_rows": 128, "block_keys": 128})):
        plan = lower(load_file(find_spec("causal")), {"D": size, "E": size}, "bfloat16")
        sizes = {"B": 1, "H": 8, "I": 4096}
        target = replace(AVX512_AMX, l1_bytes=48 << 10)
        assert long_blocks(plan, target, sizes, cores=2) == wanted
        assert long_blocks(plan, target, {**sizes, "I": 128}, cores=2) == {}
        assert long_blocks(plan, AVX512_BF16, sizes, cores=2) == {}


@pytest.mark.parametrize(
    ("spec", "dtype", "pays"),
    [
        ("simple_gla", "bfloat16", True),
        ("mamba2", "bfloat16", True),
        ("delta", "bfloat16", True),
        ("gla", "bfloat16", False),  # a decay for each entry
        ("path", "bfloat16", True),
        ("delta", "float32", False),
    ],
)
def test_chunks_where_their_products_are_most_of_them(spec: str, dtype: str, pays: bool) -> None:
    mixer = load_file(find_spec(spec))
    plan = lower(mixer, dict.fromkeys(feature_dims(mixer), 64), dtype, recurrence="chunk")
    for length in (64, 65, 4096):
        assert chunks_pay(plan, AVX512_AMX, {"T": length}) is (pays and length > 64)
    assert not chunks_pay(plan, AVX512_BF16, {"T": 4096})


@needs_tiles
@pytest.mark.parametrize("growth", [0.0, 0.02, -0.02])
def test_a_maximum_may_be_behind(growth: float) -> None:
    """Scores that rise from key to key, in small steps or many at once, and rows that see none."""
    x = attention(300)
    x["k"] = (x["k"].float() * (1 + growth * torch.arange(300)[:, None])).bfloat16()
    x["k"][..., 100:110, :] *= 50
    mixer = load_file(find_spec("causal"))
    found = CpuRunner(mixer, lower)(x)["o"].float()
    torch.testing.assert_close(
        found, of_torch({n: t.float() for n, t in x.items()}), rtol=0, atol=3e-2
    )


# ------------------------------------------------------------------------------- permission


def test_without_permission_pairs_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixc.backends.cpu.target.may_use_tiles", lambda: False)
    macros = frozenset({"__AMX_TILE__"})
    assert permitted(replace(AVX512_AMX, macros=macros)) == AVX512_BF16
    assert permitted(replace(AVX512_AMX, macros=macros)).macros == macros
    assert permitted(AVX512) == AVX512


REFUSED = """
import ctypes
class Stack(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
small = ctypes.create_string_buffer(1 << 12)
stack = Stack(ctypes.addressof(small), 0, len(small))
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
from mixc.backends.cpu.build import find_compiler
print(find_compiler().target.name)
"""


@needs_tiles
def test_a_kernel_that_refuses_is_believed() -> None:
    """As Linux does where a signal's stack has no room for tiles."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "avx512_bf16", done.stderr
