"""What a product that nothing waits for reads is loaded for it alone where others read it, too."""

from __future__ import annotations

import pytest

from mixc.backends.triton.emit import emit_module, final_form
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.plan import Plan
from mixc.ir.targets import EVERY_GPU, Target, parse_target
from mixc.ir.tile import For, Load, Program, all_ops

from .normed import NORMED

HOPPER, AMPERE = parse_target("cuda:90"), parse_target("cuda:80")


def backward(target: Target) -> Plan:
    derivative = differentiate(load_file(find_spec("causal")))
    return lower(derivative.backward, {"D": 64, "E": 64}, "bfloat16", target=target)


def forward(target: Target) -> Plan:
    return lower(load_text(NORMED), {"D": 64, "E": 64}, "bfloat16", target=target)


def again(program: Program) -> list[Load]:
    return [op for op in all_ops(program.body) if isinstance(op, Load) and op.again]


@pytest.mark.parametrize("target", [HOPPER, EVERY_GPU])
def test_values_are_read_for_their_norm_and_again_for_the_sum_of_products(target: Target) -> None:
    made = final_form(forward(target))
    (sweep,) = [k.program for k in made.kernels if again(k.program)]
    (full, _) = [op for op in sweep.body if isinstance(op, For)]
    (load,) = again(sweep)
    assert (load.buffer, load in full.body) == ("v", True)
    beside = [op for op in full.body if isinstance(op, Load) and op.buffer == "v"]
    assert [op.again for op in beside] == [False, True]
    source = emit_module(forward(target))
    assert source.count('eviction_policy="evict_last"') == 1  # else the compiler makes one of two


def test_where_products_are_waited_for_it_is_read_once() -> None:
    made = final_form(forward(AMPERE))
    assert not any(again(kernel.program) for kernel in made.kernels)


@pytest.mark.parametrize("target", [HOPPER, AMPERE])
def test_a_cotangent_that_delta_is_stored_of_is_read_once(target: Target) -> None:
    made = final_form(backward(target))
    assert not any(again(kernel.program) for kernel in made.kernels)


def test_no_product_of_a_loaded_tile_stands_under_a_condition() -> None:
    source = emit_module(backward(HOPPER))
    start = source.index("def _masked_dot")
    function = source[start : source.index("\n@triton.jit", start)]
    before, _, under = function.partition("if nothing != nothing:")
    assert before.count("tl.dot(") == 2
    assert "tl.dot(a, " not in under
    assert ", b, acc" not in under
