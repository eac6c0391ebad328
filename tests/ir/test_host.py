"""Numbers on the host: integers exact, reals as torch has them in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.backends.reference.evaluate import evaluate
from mixc.ir.errors import ArgumentError
from mixc.ir.expression import ELEMENTWISE, Index, Kind, Literal, Reduce, Scalar, Size, call
from mixc.ir.host import FUNCTIONS, evaluate_host, host_code, is_host

INTEGERS_ONLY = frozenset({"floordiv", "mod"})
VALUES = (-math.inf, -1000.0, -1.5, -0.0, 0.0, 0.3, 1.0, 2.5, 800.0, math.inf)


def test_every_elementwise_function_is_there():
    assert FUNCTIONS.keys() == ELEMENTWISE.keys()


def test_integers_stay_exact():
    large = call("add", call("pow", 3, 80), 1)
    assert evaluate_host(large, {}) == 3**80 + 1


@given(st.integers(-50, 50), st.integers(-7, 7).filter(bool))
def test_division_of_integers_floors(a, b):
    quotient = evaluate_host(call("floordiv", a, b), {})
    rest = evaluate_host(call("mod", a, b), {})
    assert quotient == math.floor(a / b)
    assert quotient * b + rest == a


def test_sizes_and_params():
    expr = call("div", call("sub", Size("T"), 1), Scalar("block", Kind.INT))
    assert evaluate_host(expr, {"T": 10}, {"block": 4}) == 2.25
    assert is_host(expr)
    assert not is_host(call("add", Index("T"), 1))
    assert not is_host(Reduce("sum", Literal(1), ("T",)))


def same(a, b):
    return type(a) is type(b) and (a == b or (math.isnan(a) and math.isnan(b)))


LEAVES = [Size("T"), Size("H"), Scalar("w", Kind.INT), Scalar("x", Kind.REAL)]
LEAVES += [Scalar("flag", Kind.BOOL), *map(Literal, (-2, 3, -1.5, 0.0, math.inf))]


def larger(inner):
    whole = inner.filter(lambda e: e.kind is not Kind.REAL)
    return st.one_of(
        st.builds(
            call, st.sampled_from(["add", "sub", "mul", "div", "min", "pow", "eq"]), inner, inner
        ),
        st.builds(call, st.sampled_from(["neg", "abs", "exp", "floor", "not", "log"]), inner),
        st.builds(call, st.just("where"), inner, inner, inner),
        st.builds(call, st.sampled_from(["floordiv", "mod"]), whole, whole),
    )


@settings(max_examples=300, deadline=None)
@given(st.recursive(st.sampled_from(LEAVES), larger, max_leaves=10))
def test_code_says_what_evaluation_says(expr):
    numbers = {"T": 7, "H": 4, "w": -3, "x": 0.25, "flag": True}
    try:
        expected = evaluate_host(expr, numbers, numbers)
    except ArgumentError:
        with pytest.raises((ArithmeticError, ValueError)):
            eval(host_code(expr, {n: n for n in numbers}), {"FUNCTIONS": FUNCTIONS, **numbers})
        return
    found = eval(host_code(expr, {n: n for n in numbers}), {"FUNCTIONS": FUNCTIONS, **numbers})
    assert same(found, expected)


@pytest.mark.parametrize("fn", sorted(FUNCTIONS.keys() - INTEGERS_ONLY))
def test_functions_are_those_of_torch(fn):
    for a in VALUES if fn not in ("floor", "ceil", "round") else VALUES[1:-1]:
        values = (a, 2.5, -1.0)[: ELEMENTWISE[fn]]
        expr = call(fn, *values)
        number = evaluate_host(expr, {})
        # The same on a tensor, so that it is not computed on the host.
        tensors = [call("add", v, call("mul", 0, Index("N"))) for v in values]
        tensor = evaluate(call(fn, *tensors), {"N": 1}).tensor
        assert type(number) is {Kind.BOOL: bool, Kind.INT: int, Kind.REAL: float}[expr.kind]
        assert same(eval(host_code(expr, {}), {"FUNCTIONS": FUNCTIONS}), number)
        torch.testing.assert_close(
            torch.tensor([float(number)], dtype=torch.float64),
            tensor.to(torch.float64),
            rtol=1e-13,
            atol=1e-300,
            equal_nan=True,
        )


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        (call("floordiv", 3, call("sub", Size("T"), 4)), "division by zero"),
        (call("mod", 3, 0), "division by zero"),
        (call("pow", 10, 10**10), "too large"),
        (call("floor", call("log", 0)), "too large"),
        (call("floor", call("sub", math.inf, math.inf)), "no number"),
    ],
)
def test_what_has_no_value_is_an_argument_error(expr, message):
    with pytest.raises(ArgumentError, match=message):
        evaluate_host(expr, {"T": 4})
