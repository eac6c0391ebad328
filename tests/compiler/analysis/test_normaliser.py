"""The passes that a normaliser needs, and that one pass by blocks gives what its lines say."""

from __future__ import annotations

import math
import random

import pytest

from mixc.compiler.analysis.algebra import Symbols, exponential_in, from_sympy, to_sympy
from mixc.compiler.analysis.normaliser import classify
from mixc.compiler.analysis.pointwise import Values, value_at
from mixc.ir.errors import UnsupportedError
from mixc.ir.expression import Cumsum, Expr, Index, Kind, Literal, Reduce, Ref, Scalar, call
from mixc.ir.mixer import Attention
from mixc.ir.normaliser import Plain, Rescaled, TwoPass

SCORE = Ref("score", frozenset({"I", "J"}), Kind.REAL)
TOTAL = Ref("total", frozenset({"I"}), Kind.REAL)
BIAS = Ref("bias", frozenset({"J"}), Kind.REAL)
GATE = Ref("gate", frozenset({"I"}), Kind.REAL)
MASK = call("le", Index("J"), Index("I"))
ROW_MAX = Reduce("max", SCORE, ("J",))


def attention(weight: Expr, denominator: Expr = TOTAL, **fields: object) -> Attention:
    given: dict[str, object] = {"mask": MASK, "sink": None, "gain": None, "outputs": (), **fields}
    score = Ref("s", frozenset({"I", "J"}), Kind.REAL)
    return Attention("J", score, weight=weight, denominator=denominator, **given)  # type: ignore[arg-type]


def exp(value: Expr) -> Expr:
    return call("exp", value)


EXPONENTIAL = {
    "softmax": (exp(SCORE), "score", "1"),
    "exp2": (call("exp2", SCORE), "0.6931471805599453 * score", "1"),
    "power of 2": (call("pow", 2, SCORE), "0.6931471805599453 * score", "1"),
    "steep": (call("mul", 3, exp(call("mul", 2, SCORE))), "2 * score", "3"),
    "falling": (exp(call("neg", SCORE)), "-score", "1"),
    "biased": (exp(call("sub", SCORE, BIAS)), "score - bias", "1"),
    "two factors": (call("mul", exp(SCORE), exp(BIAS)), "score + bias", "1"),
    "gated": (call("mul", BIAS, exp(SCORE)), "score", "bias"),
    "divided": (call("div", exp(SCORE), call("add", GATE, 2)), "score", "1 / (gate + 2)"),
    "squared": (call("pow", exp(SCORE), 2), "2 * score", "1"),
    "stabilised by hand": (exp(call("sub", SCORE, ROW_MAX)), "score", "1"),
    "picked": (call("where", call("gt", BIAS, 0), exp(SCORE), Literal(0)), None, None),
    "softplus times exp": (call("mul", call("softplus", SCORE), exp(SCORE)), None, None),
    "in disguise": (call("add", call("expm1", SCORE), 1), "score", "1"),
    "odds": (
        call("div", call("sigmoid", SCORE), call("sub", 1, call("sigmoid", SCORE))),
        "score",
        "1",
    ),
}


@pytest.mark.parametrize("name", EXPONENTIAL)
def test_exponential_weights_rescale(name: str) -> None:
    weight, exponent, factor = EXPONENTIAL[name]
    found = classify(attention(weight))
    assert isinstance(found, Rescaled)
    assert found.denominator == TOTAL
    assert found.start == -math.inf
    if exponent is not None:
        assert (str(found.exponent), str(found.factor)) == (exponent, factor)


PLAIN = {
    "none": SCORE,
    "relu": call("relu", SCORE),
    "sigmoid": call("sigmoid", SCORE),
    "softplus": call("softplus", SCORE),
    "squared relu": call("pow", call("relu", SCORE), 2),
    "taylor": call("add", call("add", 1, SCORE), call("mul", 0.5, call("mul", SCORE, SCORE))),
    "sum of exponentials": call("add", exp(SCORE), exp(call("neg", SCORE))),
    "exp of something else": call("mul", call("sigmoid", SCORE), exp(BIAS)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_other_elementwise_weights_add_up(name: str) -> None:
    found = classify(attention(PLAIN[name], Literal(1)))
    assert isinstance(found, Plain)
    assert found.weight == PLAIN[name]


DENOMINATORS: dict[str, tuple[Expr, str]] = {
    "total": (TOTAL, "total"),
    "one more": (call("add", TOTAL, 1), "total + 1 / scale"),
    "at least 1": (call("max", call("abs", TOTAL), 1), "max(abs(total), 1 / scale)"),
    "gated": (call("mul", GATE, TOTAL), "gate * total"),
    "halved": (call("sub", call("div", TOTAL, 2), GATE), "total / 2 - gate / scale"),
    "constant": (Literal(1), "1 / scale"),
    "root": (call("sqrt", TOTAL), "sqrt(total * scale) / scale"),
}


@pytest.mark.parametrize("name", DENOMINATORS)
def test_denominators_are_scaled(name: str) -> None:
    denominator, scaled = DENOMINATORS[name]
    found = classify(attention(exp(SCORE), denominator))
    assert isinstance(found, Rescaled)
    assert str(found.denominator) == scaled
    assert found.start == (-math.inf if "scale" not in scaled else 0)


def evaluated(expr: Expr, **names: float) -> float:
    tensors = {name: ((), value) for name, value in names.items()}
    values = Values({}, {}, {name: ((), _Number(value[1])) for name, value in tensors.items()})
    return float(value_at(expr, {}, values))


class _Number:
    """A tensor without axes."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __getitem__(self, place: tuple[int, ...]) -> _Number:
        return self

    def item(self) -> float:
        return self.value


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("weight", ["softmax", "exp2", "steep", "gated", "softplus times exp"])
def test_one_pass_by_blocks_is_the_definition(weight: str, denominator: str) -> None:
    """The running form, over blocks of two keys, against weight and denominator as written."""
    w, d = EXPONENTIAL[weight][0], DENOMINATORS[denominator][0]
    found = classify(attention(w, d))
    assert isinstance(found, Rescaled)
    chance = random.Random(f"{weight} {denominator}")
    rows = {"gate": 0.7}
    keys = [
        {"score": chance.gauss(0, 3), "bias": chance.random(), "value": chance.gauss(0, 1)}
        for _ in range(8)
    ]
    weights = [evaluated(w, **key, **rows) for key in keys]
    below = evaluated(d, total=sum(weights), **rows)
    expected = sum(x * key["value"] for x, key in zip(weights, keys, strict=True)) / below

    m, total, result = found.start, 0.0, 0.0
    for block in (keys[at : at + 2] for at in range(0, 8, 2)):
        exponents = [evaluated(found.exponent, **key, **rows) for key in block]
        grown = max(m, *exponents)
        total, result = (x * math.exp(m - grown) for x in (total, result))
        m = grown
        for key, exponent in zip(block, exponents, strict=True):
            part = evaluated(found.factor, **key, **rows) * math.exp(exponent - m)
            total, result = total + part, result + part * key["value"]
    scaled = evaluated(found.denominator, total=total, scale=math.exp(m), **rows)
    assert result / scaled == pytest.approx(expected, rel=1e-12)


def test_reductions_take_a_pass_before() -> None:
    row_sum = Reduce("sum", call("softplus", SCORE), ("J",))
    found = classify(attention(call("relu", call("sub", call("div", SCORE, row_sum), 1))))
    assert isinstance(found, TwoPass)
    ((name, statistic),) = found.statistics
    assert name == "sum_j"
    assert statistic == Reduce("sum", call("softplus", SCORE), ("J",), MASK)
    assert isinstance(found.then, Plain)
    assert str(found.then.weight) == "relu(score / sum_j - 1)"
    assert "sum(softplus(score), J)" in found.reason


def test_reductions_inside_reductions_come_first() -> None:
    peak = Reduce("max", SCORE, ("J",))
    spread = Reduce("sum", exp(call("sub", SCORE, peak)), ("J",), call("gt", BIAS, 0))
    found = classify(attention(call("sub", SCORE, call("mul", spread, peak)), Literal(1)))
    assert isinstance(found, TwoPass)
    (first, one), (second, two) = found.statistics
    assert (first, second) == ("max_j", "sum_j")
    assert one.where == MASK
    assert two.x == exp(call("sub", SCORE, Ref("max_j", one.axes, Kind.REAL)))
    assert two.where == call("and", call("gt", BIAS, 0), MASK)


def test_reductions_along_the_queries() -> None:
    column = Reduce("sum", exp(SCORE), ("I",))
    found = classify(attention(call("div", exp(SCORE), column)))
    assert isinstance(found, TwoPass)
    assert [name for name, _ in found.statistics] == ["sum_i"]
    assert isinstance(found.then, Rescaled)
    assert str(found.then.factor) == "1 / sum_i"


def test_a_row_maximum_stays_where_it_does_not_cancel() -> None:
    weight = exp(call("sub", SCORE, ROW_MAX))
    assert isinstance(classify(attention(weight, call("add", TOTAL, 1))), TwoPass)
    assert isinstance(classify(attention(weight, lse="lse")), TwoPass)
    assert isinstance(classify(attention(weight)), Rescaled)


def test_totals_of_other_rows() -> None:
    found = classify(attention(exp(SCORE), Reduce("sum", TOTAL, ("I",))))
    assert isinstance(found, TwoPass)
    (row, one), (seen, two), (all_rows, three) = found.statistics
    assert (row, seen, all_rows) == ("sum_j", "any_j", "sum_i")
    assert one == Reduce("sum", exp(SCORE), ("J",), MASK)
    assert two == Reduce("any", MASK, ("J",))
    assert three == Reduce("sum", one_ref(row, one), ("I",), one_ref(seen, two))


def one_ref(name: str, reduce: Reduce) -> Ref:
    return Ref(name, reduce.axes, reduce.kind)


def test_running_sums_are_refused() -> None:
    weight = exp(Cumsum(call("logsigmoid", SCORE), "J"))
    with pytest.raises(UnsupportedError, match="running sum along J"):
        classify(attention(weight))


def test_names_of_statistics_are_new() -> None:
    taken = Ref("sum_j", frozenset({"I"}), Kind.REAL)
    weight = call("div", call("mul", SCORE, taken), Reduce("sum", SCORE, ("J",)))
    found = classify(attention(weight, Literal(1)))
    assert isinstance(found, TwoPass)
    assert [name for name, _ in found.statistics] == ["sum_j_2"]


def test_algebra_there_and_back() -> None:
    scale = Scalar("scale", Kind.REAL)
    value = call("sub", call("mul", scale, exp(SCORE)), call("div", 1, call("add", BIAS, 2)))
    symbols = Symbols()
    back = from_sympy(to_sympy(value, symbols), symbols)
    assert back is not None
    at = {"score": 0.3, "bias": 1.5}
    with_scale = Values({}, {"scale": 2.0}, {n: ((), _Number(x)) for n, x in at.items()})
    assert value_at(back, {}, with_scale) == pytest.approx(value_at(value, {}, with_scale))


def test_exponentials_by_algebra() -> None:
    found = exponential_in(call("mul", exp(SCORE), exp(call("mul", SCORE, BIAS))), SCORE)
    assert found is not None
    assert str(found[0]) in ("bias + 1", "1 + bias")
    assert exponential_in(call("mul", SCORE, SCORE), SCORE) is None
    assert exponential_in(call("relu", SCORE), SCORE) is None
