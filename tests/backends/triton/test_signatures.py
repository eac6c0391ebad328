"""The types that a plan's kernels are compiled for without a launch."""

from __future__ import annotations

import ast

import pytest

from mixc.backends.triton.cross_compile import Argument, KernelSignature
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.signatures import kernel_signatures
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.pipeline import lower
from mixc.ir.targets import parse_target

SPEC = """
mixer: biased
inputs:
  q: [B, I, H, D]
  k: [B, J, H, D]
  v: [B, J, H, D]
  slope: [H]
  seen: {dims: [B, J], dtype: bool}
  limit: {dims: [B], dtype: int32}
dims: {I: T, J: T}
params: {softness: {default: 2.0, runtime: true}, window: 128}
attention:
  over: J
  score: sum(q * k, D) / softness - slope * (i - j)
  mask: j <= i and i - j < window and seen and j < limit
  normalize: softmax
  output: {o: v}
outputs: {o: [B, H, I, D]}
"""


@pytest.fixture(scope="module")
def emitted() -> tuple[str, KernelSignature]:
    plan = lower(load_text(SPEC), {"D": 64}, "bf16")
    (signature,) = kernel_signatures(plan)
    return emit_module(plan), signature


def test_it_names_the_parameters_of_the_emitted_kernel(
    emitted: tuple[str, KernelSignature],
) -> None:
    source, signature = emitted
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    (kernel,) = [node for node in functions if node.name == signature.name]
    expected = sorted(argument.arg for argument in kernel.args.args)
    assert sorted(argument.name for argument in signature.arguments) == expected


def test_types_and_what_is_known_of_strides(emitted: tuple[str, KernelSignature]) -> None:
    arguments = {argument.name: argument for argument in emitted[1].arguments}
    assert arguments["q"] == Argument("q", "*bf16", divisible_by_16=True)
    assert arguments["seen"] == Argument("seen", "*i1", divisible_by_16=True)
    assert arguments["limit"] == Argument("limit", "*i32", divisible_by_16=True)
    # H heads of 64: a row of k starts at a multiple of 16 whatever H is, and is contiguous.
    assert arguments["k_stride_J"] == Argument("k_stride_J", "i32", divisible_by_16=True)
    assert arguments["k_stride_H"] == Argument("k_stride_H", "i32", divisible_by_16=True)
    assert arguments["k_stride_D"] == Argument("k_stride_D", "constexpr", 1)
    assert arguments["seen_stride_J"] == Argument("seen_stride_J", "constexpr", 1)
    assert arguments["softness"] == Argument("softness", "fp32")
    assert arguments["BLOCK_D"] == Argument("BLOCK_D", "constexpr", 64)
    # A length is never compiled in.
    assert arguments["J"] == Argument("J", "i32")


def test_rows_that_a_warp_scans_are_not_known_to_be_aligned() -> None:
    """Else each lane is given several channels, and the rows of a block to several lanes."""
    plan = lower(load_file(find_spec("hgrn")), {}, "bf16", target=parse_target("cuda:90"))
    (kernel,) = kernel_signatures(plan)
    arguments = {argument.name: argument for argument in kernel.arguments}
    assert arguments["x_stride_T"] == Argument("x_stride_T", "i32")
    assert arguments["x_stride_B"] == Argument("x_stride_B", "i32", divisible_by_16=True)
    free = '"o_stride_T", "g_stride_T", "x_stride_T"'
    assert f"@triton.jit(do_not_specialize=[{free}" in emit_module(plan)
