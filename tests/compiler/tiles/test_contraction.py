"""Sums of products: dots where the terms separate, else element by element or step by step."""

from __future__ import annotations

import pytest
import torch

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.compiler.tiles.contraction import factors_of
from mixc.ir.expression import Kind, Literal, Ref, call
from mixc.ir.tile import Dot, For, Op, Reduce, all_ops

from ..plans import assert_equal

SPEC = """
mixer: m
inputs: {{q: [B, I, D], k: [B, J, D], w: [B, D], v: [B, J, E], m: [D, C]}}
params: {{scale: 0.5}}
attention: {{over: J, score: "{score}", mask: j <= i, normalize: softmax, output: {{o: v}}}}
outputs: {{o: [B, I, E]}}
"""


def ops(score: str) -> list[Op]:
    plan = lower(load_text(SPEC.format(score=score)), {"D": 32, "C": 16, "E": 32}, "float32")
    return list(all_ops(plan.kernels[-1].program.body))


def dots(score: str) -> int:
    """Dots that the score takes, the output's own apart."""
    return sum(isinstance(op, Dot) and op.over != "J" for op in ops(score))


def steps(score: str) -> int:
    return sum(isinstance(op, For) and op.step == 1 for op in ops(score))


SCORES = {
    "scale * sum(q * k, D)": (2, 0),  # in full blocks and in partial ones
    "sum(q * w * k, D)": (2, 0),
    "sum(scale * q * (k / w), D)": (2, 0),
    "sum((q + w) * k, D)": (2, 0),
    "sum((q - 1.0) * (k + w), D)": (2, 0),
    "-sum((q - k) ** 2, D)": (0, 2),
    "sum(w * tanh(q + k), D)": (0, 2),
    "sum(q * k * (q + w + k), D)": (0, 2),
    "sum(q, D) * sum(w * k, D)": (0, 0),
    "sum(q, D) + sum(k, D)": (0, 0),
    "max(k, D)": (0, 0),
    "max(q + k, D)": (0, 2),
}


@pytest.mark.parametrize("score", SCORES)
def test_how_a_sum_is_taken(score: str) -> None:
    expected_dots, expected_steps = SCORES[score]
    assert (dots(score), steps(score)) == (expected_dots, expected_steps)


@pytest.mark.parametrize(
    "score", [*SCORES, "sum(q * k, D) * sum(m, D, C)", "sum(where(w > 0, q * k, 0), D)"]
)
def test_every_way_gives_what_the_reference_does(score: str) -> None:
    mixer = load_text(SPEC.format(score=score))
    shapes = {"q": (1, 5, 6), "k": (1, 7, 6), "w": (1, 6), "v": (1, 7, 3), "m": (6, 2)}
    generator = torch.Generator().manual_seed(1)
    tensors = {
        n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()
    }
    assert_equal(mixer, {i.name: tensors[i.name] for i in mixer.inputs})


@pytest.mark.parametrize("factor", ["1 / y", "log(y)", "rsqrt(y)", "exp(30 * index(J))"])
def test_what_is_infinite_beyond_the_end_counts_for_nothing(factor: str) -> None:
    """0 * inf is NaN: a factor that is 0 there does not hide one that is infinite."""
    mixer = load_text(
        f"mixer: m\ninputs: {{x: [B, J], y: [J]}}\nmap: {{o: 'sum(x * {factor}, J)'}}\n"
        "outputs: {o: [B]}\n"
    )
    x, y = torch.randn(3, 5, dtype=torch.float64), torch.rand(5, dtype=torch.float64) + 0.5
    assert_equal(mixer, {"x": x, "y": y})


def test_no_tile_has_three_axes() -> None:
    for score in SCORES:
        assert all(len(op.out.axes) <= 2 for op in ops(score) if hasattr(op, "out")), score


def test_a_norm_of_a_row_is_reduced_once() -> None:
    reduced = [op for op in ops("sum(l2norm(q, D) * k, D)") if isinstance(op, Reduce)]
    assert [op.x.axes for op in reduced if op.over == "D"] == [frozenset("ID")]


A, B = (Ref(n, frozenset(n.upper()), Kind.REAL) for n in "ab")
ROW = Ref("row", frozenset("IJ"), Kind.REAL)


def test_factors() -> None:
    assert factors_of(call("mul", call("neg", A), call("div", B, ROW))) == [
        Literal(-1.0),
        A,
        B,
        call("div", 1.0, ROW),
    ]


def test_a_quotient_is_the_same_number_in_a_sum_and_beside_it() -> None:
    """Taken apart in one place it was an ulp off: the layer norm of one position was not 0."""
    x, y = (Ref(name, frozenset(axes), Kind.REAL) for name, axes in (("x", "ID"), ("y", "I")))
    assert factors_of(call("div", x, x)) == [call("div", x, x)]
    assert factors_of(call("div", y, x)) == [call("div", y, x)]
    assert factors_of(call("div", x, y)) == [x, call("div", 1.0, y)]
