"""Calls of native kernels: what is kept from call to call, and what it costs."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

import mixc
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.pipeline import lower
from mixc.ir.errors import ArgumentError


@pytest.fixture(scope="module")
def causal() -> CpuRunner:
    return CpuRunner(load_file(find_spec("causal")), lower)


def inputs(length: int = 70, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(length)
    shape = (1, 2, length, 64)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name in "qkv"}


def expected(x: dict[str, Tensor]) -> Tensor:
    return sdpa(x["q"], x["k"], x["v"], is_causal=True)


def test_lengths_do_not_build_anew(causal: CpuRunner) -> None:
    for length in (70, 71, 200):
        x = inputs(length)
        torch.testing.assert_close(causal(x)["o"], expected(x))
    assert len(causal.modules) == 1


def test_strides_are_those_of_the_call(causal: CpuRunner) -> None:
    x = inputs()
    turned = {n: t.transpose(1, 2).contiguous().transpose(1, 2) for n, t in x.items()}
    reversed_features = {**x, "k": x["k"].flip(-1), "q": x["q"].flip(-1)}
    strided = {**x, "v": torch.cat([x["v"], x["v"]], -1)[..., ::2]}
    torch.testing.assert_close(causal(turned)["o"], expected(x))
    torch.testing.assert_close(causal(reversed_features)["o"], expected(x))
    torch.testing.assert_close(causal(strided)["o"], expected(strided))


def test_few_queries_and_many_keys_share_the_keys() -> None:
    """With fewer heads than threads the keys go in shares, merged by a second kernel."""
    cross = CpuRunner(load_file(find_spec("cross")), lower)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        q, k, v = (torch.randn(1, 1, n, 64) for n in (1, 5000, 5000))
        found = cross({"q": q, "k": k, "v": v})
    finally:
        torch.set_num_threads(before)
    (module,) = cross.modules.values()
    assert len(module.plan.kernels) > 1
    torch.testing.assert_close(found["o"], sdpa(q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("heads", "groups", "queries"), [(3, 1, 1), (8, 1, 2), (8, 2, 1), (2, 2, 1)]
)
def test_heads_of_a_group_are_rows_that_share_the_keys(
    heads: int, groups: int, queries: int, dtype: torch.dtype
) -> None:
    cross = CpuRunner(load_file(find_spec("cross")), lower)
    q = torch.randn(2, heads, queries, 64).to(dtype)
    k, v = (torch.randn(2, groups, 200, 64).to(dtype) for _ in "kv")
    found = cross({"q": q, "k": k, "v": v})["o"]
    (module,) = cross.modules.values()
    in_rows = any("o_rows" in kernel.computes for kernel in module.plan.kernels)
    assert in_rows == (heads > groups)
    wanted = sdpa(q.float(), k.float(), v.float(), enable_gqa=True)
    limit = 1e-5 if dtype is torch.float32 else 8e-3
    torch.testing.assert_close(found.float(), wanted, rtol=limit, atol=limit)


def test_two_narrow_dtypes_are_refused(causal: CpuRunner) -> None:
    x = inputs()
    with pytest.raises(ArgumentError, match="float16"):
        causal({**x, "k": x["k"].to(torch.bfloat16), "v": x["v"].to(torch.float16)})
    with pytest.raises(ArgumentError, match="float64"):
        causal({name: t.double() for name, t in x.items()})


def test_a_repeated_call_of_the_face_sees_new_values_and_gradients() -> None:
    attend = mixc.load("causal")
    for length in (70, 70, 33):
        x = inputs(length)
        torch.testing.assert_close(attend(*x.values()), expected(x))
    y = {name: t + 1 for name, t in inputs().items()}
    torch.testing.assert_close(attend(*y.values()), expected(y))
    wide = {name: t.double() for name, t in y.items()}
    assert attend(*wide.values()).dtype is torch.float64
    assert attend(*wide.values()).dtype is torch.float64
    y["q"].requires_grad_()
    assert attend(*y.values()).requires_grad


def seconds(call, *x: Tensor) -> float:
    start = time.perf_counter()
    call(*x)
    return time.perf_counter() - start


def without_kernels(mixer: mixc.LoadedMixer, x: dict[str, Tensor]) -> mixc.LoadedMixer:
    """The mixer after a call, with every later call's kernels left out."""
    mixer(*x.values())
    (runner,) = mixer._execution._runners.values()
    for module in runner.modules.values():
        nothing = tuple(lambda *_: None for _ in module.functions)
        object.__setattr__(module, "functions", nothing)
    runner.prepared.clear()
    mixer._execution._again.clear()
    return mixer


def test_a_call_adds_little_to_its_kernels() -> None:
    """Measured at 9 us with the kernel left out, a new length at 15: the bounds allow for a busy
    machine, and for none of the milliseconds that the equations take."""
    attend = without_kernels(mixc.load("causal"), inputs(17))
    lengths = [inputs(length) for length in range(20, 120)]
    attend(*inputs(18).values())
    new = min(seconds(attend, *x.values()) for x in lengths)
    known = min(seconds(attend, *x.values()) for x in lengths)
    assert new < 100e-6
    assert known < 40e-6


def test_few_keys_are_no_block_of_many() -> None:
    """16 rows of one head, measured at 15 us; 64 keys a block took 30."""
    attend = mixc.load("causal")
    x = {name: torch.randn(1, 1, 16, 64) for name in "qkv"}
    torch.testing.assert_close(attend(*x.values()), expected(x))
    (runner,) = attend._execution._runners.values()
    (module,) = runner.modules.values()
    assert module.plan.kernels[0].program.tile("J").block == 16
    assert min(seconds(attend, *x.values()) for _ in range(200)) < 100e-6


def test_one_head_keeps_every_core_busy() -> None:
    """The columns of its state are walked side by side."""
    attend = mixc.load("gla")
    both = {n: torch.randn(1, 40, 2, 64) for n in "qkv"} | {"g": -torch.rand(1, 40, 2, 64)}
    one = {name: x[:, :, :1] for name, x in both.items()}
    torch.testing.assert_close(attend(**one).o, attend(**both).o[:, :, :1])


def test_few_lengths_are_kept(causal: CpuRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixc.backends.cpu.run._MOST_SIZES", 3)
    for length in (65, 66, 67, 68, 65, 68):
        x = inputs(length)
        torch.testing.assert_close(causal(x)["o"], expected(x))
    (call,) = (call for call in causal.prepared.values() if call.dtype is torch.float32)
    assert len(call._calls) <= 3


WEIGHTS = """
mixer: weighed
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E]}
dims: {I: T, J: T}
attention:
  over: J
  score: 2.0 * sum(q * k, D)
  mask: j <= i
  normalize: softmax
  output: {o: v}
  weights: p
outputs: {o: [B, H, I, E], p: [B, H, I, J]}
"""


@pytest.mark.parametrize("length", [1, 2])
def test_weights_of_few_queries_and_keys(length: int) -> None:
    """A product of one row and one column fills a vector all the same."""
    mixer = load_text(WEIGHTS, "weighed.yaml")
    x = {name: torch.randn(1, 2, length, 24) for name in "qkv"}
    found, wanted = CpuRunner(mixer, lower, flags=("-O0",))(x), run(mixer, x, {})
    for name in ("o", "p"):
        torch.testing.assert_close(found[name], wanted[name].float())
