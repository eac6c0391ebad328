"""What the emitted C++ looks like where it matters for speed."""

from __future__ import annotations

import re

import pytest

from mixc.backends.cpu.configure import configure, defaults, knobs, short_rows
from mixc.backends.cpu.emit import emit_source
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.plan import Plan
from mixc.ir.targets import AVX2, AVX512_BF16, CpuTarget


def plan_of(spec: str, dtype: str = "bfloat16") -> Plan:
    return lower(load_file(find_spec(spec)), {"D": 64, "E": 64}, dtype)


def kernel_of(spec: str, dtype: str = "bfloat16", target: CpuTarget = AVX512_BF16) -> str:
    text = emit_source(configure(plan_of(spec, dtype), defaults(target)), target).text
    return text[text.index("static void causal_o") :]


def test_equal_plans_give_equal_text() -> None:
    assert kernel_of("causal") == kernel_of("causal")


def test_weight_sum_and_rounding_are_one_pass() -> None:
    """exp2, the sum of the weights and their pairs for the next dot share one loop nest."""
    loops = kernel_of("causal").split("alignas(64)")
    (first, _) = (part for part in loops if "mx::exp2" in part and "pair_bf16" in part)
    assert re.search(r"(\w+)_acc\[v\] = \1_acc\[v\] \+ weight", first)


def loops_of(text: str) -> tuple[str, str]:
    """The loops over keys: blocks that are seen whole, and the others."""
    first, second = re.split(r"for \(int32_t j_start\w* = ", text)[1:]
    return first, second


def test_full_blocks_have_no_mask() -> None:
    full, partial = loops_of(kernel_of("causal"))
    assert "<= i_v" in partial
    assert "<= i_v" not in full


def test_sums_are_rescaled_in_place() -> None:
    text = kernel_of("causal")
    assert text.count("mx::Start::ROWS_SCALED") == text.count("mx::Start::ZERO") == 2
    assert not re.search(r"memcpy\(o_sum", text)


def test_float32_operands_are_read_where_they_lie() -> None:
    full, _ = loops_of(kernel_of("causal", "float32"))
    lines = full.splitlines()
    copies = [n for n, line in enumerate(lines) if "mx::load_tile" in line]
    assert all(lines[n - 1].strip() == "if (!(v__stride_E == 1)) {" for n in copies)
    assert re.search(r"mx::dot<.*>\(qk, k_tile_at, k_tile_row, k_tile_step, ", full)


def test_a_backward_pass_turns_no_operand_round_in_its_loops() -> None:
    """What is the rows' own is turned once, instead of each block that they walk."""
    backward = differentiate(load_file(find_spec("causal"))).backward
    plan = configure(lower(backward, {"D": 64, "E": 64}, "float32"), defaults(AVX2))
    text = emit_source(plan, AVX2).text
    turned = re.compile(r"mx::load_tile<64, 64>\(\w+, .*, \w+_stride_[DE], \w+_stride_[IJ], ")
    inside = re.compile(r"for \(int32_t .*?\n    }\n", re.DOTALL)
    body = text[text.index("static void causal_backward") :]
    assert len(turned.findall(body)) == 4  # keys and values, queries and the cotangent
    assert not any(turned.search(loop) for loop in inside.findall(body))


def test_a_read_at_a_shifted_place_is_a_tile() -> None:
    """It has a first position as well as a last one: read number by number it took 4 times."""
    spec = """
        mixer: shifted
        inputs: {x: [T, S], w: [A, C]}
        map: {o: "sum(at(x, T=t - a, S=index(S) + 2 - c) * w, A, C)"}
        outputs: {o: [T, S]}
    """
    plan = configure(lower(load_text(spec), {"C": 5}, "float32"), defaults(AVX2))
    text = emit_source(plan, AVX2).text.split("}  // namespace mx\n")[-1]
    assert "mx::load_part<" in text
    assert "mx::widen(x[" not in text


def test_without_paired_dots_products_are_of_floats() -> None:
    text = kernel_of("causal", target=AVX2)
    assert "mx::Pairs" not in text
    assert "mx::Floats" in text


@pytest.mark.parametrize(
    ("length", "block"),
    [(0, None), (1, 1), (2, 8), (8, 8), (9, 16), (16, 16), (17, None), (4096, None)],
)
def test_blocks_of_few_rows(length: int, block: int | None) -> None:
    wanted = {} if block is None else {"I": block}
    assert short_rows(plan_of("causal"), {"I": length}) == wanted


def test_configured_blocks_reach_the_text() -> None:
    chosen = {**defaults(AVX512_BF16), "block_rows": 32, "block_keys": 128}
    text = emit_source(configure(plan_of("causal"), chosen), AVX512_BF16).text
    assert "BLOCK_I = 32" in text
    assert "BLOCK_J = 128" in text


def test_features_are_padded_to_whole_vectors_only() -> None:
    plan = lower(load_file(find_spec("causal")), {"D": 80, "E": 40}, "bfloat16")
    (kernel,) = configure(plan, defaults(AVX512_BF16)).kernels
    assert kernel.program.tile("D").block == 80
    assert kernel.program.tile("E").block == 48


@pytest.mark.parametrize("target", [AVX2, AVX512_BF16], ids=lambda t: t.name)
def test_defaults_are_choices(target: CpuTarget) -> None:
    assert all(knob.default in knob.choices and knob.reason for knob in knobs(target))
