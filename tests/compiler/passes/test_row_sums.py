"""Numbers of a row that each block of the other side would sum up again, stored on GPUs."""

from __future__ import annotations

import pytest

from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.plan import Plan
from mixc.ir.targets import AVX2, AnyTarget, parse_target
from mixc.ir.task import AttentionTask, PointwiseTask

HOPPER = parse_target("cuda:90")
SIZES = {"D": 64, "E": 64}


def backward(name: str, target: AnyTarget = HOPPER) -> Plan:
    return lower(differentiate(load_file(find_spec(name))).backward, SIZES, target=target)


def attention(score: str, value: str = "v") -> Plan:
    text = f"""
mixer: m
inputs: {{q: [B, H, I, D], k: [B, H, J, D], u: [B, H, J, D], v: [B, H, J, E]}}
attention:
  over: J
  score: {score}
  normalize: softmax
  output: {{o: "{value}"}}
outputs: {{o: [B, H, I, E]}}
"""
    return lower(load_text(text), SIZES, target=HOPPER)


def rows(plan: Plan) -> list[str]:
    """What pointwise tasks before attentions make, by name."""
    return [t.result for t in plan.tasks if isinstance(t, PointwiseTask)]


@pytest.mark.parametrize("name", ["causal", "sink", "alibi"])
def test_gradients_take_outputs_in_one_number_a_row(name: str) -> None:
    plan = backward(name)
    sweeps = [task for task in plan.tasks if isinstance(task, AttentionTask)]
    assert rows(plan)[0] == "delta"
    assert plan.buffer("delta").dims == ("B", "H", "I")
    for sweep in sweeps:
        assert "delta" in sweep.reads
        assert "o" not in sweep.reads


def test_a_cpu_keeps_them_where_they_are() -> None:
    assert "delta" not in rows(backward("causal", AVX2))


def test_a_norm_of_what_is_there_anyway_is_made_there() -> None:
    assert rows(attention("sum(q * k, D) - sum(k * k, D)")) == []


def test_a_sum_of_what_nothing_else_reads_is_stored() -> None:
    assert len(rows(attention("sum(q * k, D) - sum(u * u, D)"))) == 1
    assert len(rows(attention("sum(q * k, D) - sum(u * k, D)", "v * sum(u * k, D)"))) == 1


def test_a_sum_of_the_rows_of_a_block_alone_is_made_there() -> None:
    assert rows(attention("sum(q * k, D) * sum(q * q, D)")) == []


def test_a_sum_is_stored_after_what_it_is_made_of() -> None:
    """Two walks take a maximum; the sum that one of them takes too is of what is made between."""
    mixer = load_text("""
mixer: m
inputs: {q: [B, H, I, D], k: [B, H, J, D], x: [J, R], y: [H], v: [B, H, J, E]}
attention:
  over: J
  score: sum(q * k, D) + logsumexp(x, R) + y * j / 16
  normalize: softmax
  output: {o: v}
outputs: {o: [B, H, I, E]}
""")
    plan = lower(differentiate(mixer).backward, {**SIZES, "R": 13}, target=HOPPER)
    assert len(rows(plan)) > 1
