"""Which terms of a score the distance of two positions decides, and what they are per distance."""

from __future__ import annotations

import pytest

from mixc.compiler.analysis.distances import Distances, lies_within
from mixc.compiler.language.load import load_text
from mixc.ir.expression import Expr, Index, Ref, Size, call
from mixc.ir.mixer import Attention

SPEC = """
mixer: m
inputs: {{q: [H, I, D], k: [H, J, D], table: [R, H], slope: [H], row: [I], key: [J], n: [J, R]}}
attention:
  over: J
  score: sum(q * k, D) + {term}
  normalize: softmax
  output: {{o: k}}
outputs: {{o: [H, I, D]}}
"""
AXIS = Distances("I", "J", "r")


def score_with(term: str) -> Expr:
    (stage,) = load_text(SPEC.format(term=term)).stages
    assert isinstance(stage, Attention)
    return stage.score


def stored(term: str) -> list[str]:
    """What is computed once per distance, as text."""
    found: list[str] = []

    def store(made: Expr, part: Expr) -> Ref:
        assert made.kind is part.kind
        assert made.axes == part.axes - {"I", "J"} | {"r"}
        found.append(str(made))
        return Ref("stored", made.axes, made.kind)

    AXIS.replaced(score_with(term), store)
    return found


@pytest.mark.parametrize(
    ("term", "made"),
    [
        ("slope * log(1 + abs(i - j))", "slope * log(1 + abs(r - J))"),
        ("table[R=min(abs(j - i), 3)]", "table[R=min(abs(J - r), 3)]"),
        ("exp(i + 2 - j)", "exp(r - J + 2)"),
        ("where(j > i, 1, 2) * exp2(i - j)", "where(J - r > 0, 1, 2) * exp2(r - J)"),
        ("row * sqrt(abs(2 * i - 2 * j))", "sqrt(abs(2 * r - 2 * J))"),
    ],
)
def test_costly_terms_of_the_distance(term: str, made: str) -> None:
    assert stored(term) == [made]


@pytest.mark.parametrize(
    "term",
    [
        "slope * (i - j)",  # as cheap as a load
        "abs(i - j) // 3",
        "table[R=i - j + 7]",  # in order already
        "exp(min(i, j))",
        "exp(i + j)",
        "exp(2 * i - j)",
        "log(1 + i) + log(1 + j)",
        "exp(row - key)",
        "n[R=floor(log(1 + abs(i - j)))]",  # a load that would wait for another
    ],
)
def test_other_terms_stay(term: str) -> None:
    assert stored(term) == []


def test_every_pair_has_a_place() -> None:
    assert lies_within(AXIS.place, AXIS.count)
    assert not lies_within(call("sub", Index("I"), Index("J")), AXIS.count)
    assert not lies_within(AXIS.place, Size("I"))
