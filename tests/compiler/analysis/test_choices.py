"""Numbers that a choice hangs on are not rounded: which they are, and what is chosen by them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mixc
from mixc.backends.triton.emit import emit_module
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.plan import Plan
from mixc.ir.tile import Dot, DType, all_ops

RANKED = """
mixer: ranked
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E]}
dims: {I: T, J: T, N: (J + 3) // 4}
let:
  turned: rope(q, i, D)
  mean_k: mean(rope(k, j, D), J, N=j // 4)
stages:
  - select: {over: N, score: "sum(turned * mean_k, D)", keep: {top: 3}, output: chosen}
  - attention: {over: J, score: "sum(q * k, D)", mask: "chosen[N=j // 4]", output: {o: v}}
outputs: {chosen: [B, I, N], o: [B, I, E]}
"""
WEIGHTS = """
mixer: weights
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E]}
dims: {I: T, J: T, N: (J + 3) // 4}
let: {mean_k: "mean(k, J, N=j // 4)", mean_v: "mean(v, J, N=j // 4)"}
stages:
  - attention: {over: N, score: "sum(q * mean_k, D)", weights: p, output: {a: mean_v}}
  - select: {over: N, score: p, keep: {top: 3}, output: chosen}
outputs: {chosen: [B, I, N], a: [B, I, E]}
"""


def planned(text: str, dtype: str = "bfloat16") -> Plan:
    return lower(load_text(text), {"D": 64, "E": 64}, dtype)


def exact_dots(plan: Plan) -> dict[str, int]:
    found = {
        k.program.name: sum(isinstance(op, Dot) and op.exact for op in all_ops(k.program.body))
        for k in plan.kernels
    }
    return {name: count for name, count in found.items() if count}


def temporaries(plan: Plan) -> dict[str, DType]:
    return {b.name: b.dtype for b in plan.buffers if b.role == "temporary" and b.dtype.is_float}


def test_what_is_ranked_and_what_it_is_made_of_keep_float32() -> None:
    plan = planned(RANKED)
    made = temporaries(plan)
    assert len(made) >= 2
    assert {*made.values()} == {DType.FLOAT32}
    assert exact_dots(plan) == {"ranked_mean_k_sum": 1, "ranked_chosen": 1}
    assert emit_module(plan).count('"bf16x3"') == 2
    assert "bf16x3" not in emit_module(plan, wide_dots=True)


def test_weights_that_are_ranked_are_those_of_their_attention() -> None:
    plan = planned(WEIGHTS)
    narrow = {name for name, dtype in temporaries(plan).items() if dtype is DType.BFLOAT16}
    assert len(narrow) == 2  # means of keys and of values, of which the attention makes products
    assert exact_dots(plan) == {}


def test_float32_is_as_it_was() -> None:
    text = emit_module(planned(RANKED, "float32"))
    assert "bf16x3" not in text
    assert 'input_precision="ieee"' in text


@pytest.mark.parametrize("backend", ["cpu", "interpreter"])
def test_numbers_in_bfloat16_choose_what_the_equations_say(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "ranked.yaml"
    path.write_text(RANKED)
    torch.manual_seed(0)
    given = [torch.randn(2, 96, 64).bfloat16() for _ in range(3)]
    found = mixc.load(path, backend=backend)(*given)
    wanted = mixc.load(path, backend="reference")(*(x.double() for x in given))
    assert torch.equal(found.chosen, wanted.chosen)
