"""Elementwise functions: formulas, kinds, and gradients that stay out of masked places."""

import math

import pytest
import torch

from mixc.backends.reference.elementwise import FUNCTIONS, nothing_from_nothing
from mixc.backends.reference.evaluate import evaluate
from mixc.backends.reference.values import Value
from mixc.ir.expression import ELEMENTWISE, Index, Kind, Literal, Ref, call

SIZES = {"I": 4, "J": 5}


def real(name, *dims):
    return Ref(name, frozenset(dims), Kind.REAL)


def integer(name, *dims):
    return Ref(name, frozenset(dims), Kind.INT)


def test_every_function_is_there():
    assert FUNCTIONS.keys() == ELEMENTWISE.keys()


@pytest.mark.parametrize(
    ("fn", "formula"),
    [
        ("softplus", lambda x: torch.log(1 + torch.exp(x))),
        ("logsigmoid", lambda x: torch.log(1 / (1 + torch.exp(-x)))),
        ("gelu", lambda x: x * 0.5 * torch.erfc(-x / math.sqrt(2))),
        (
            "gelu_tanh",
            lambda x: x / 2 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3))),
        ),
        ("silu", lambda x: x / (1 + torch.exp(-x))),
        ("elu", lambda x: torch.where(x > 0, x, torch.exp(x) - 1)),
        ("rsqrt", lambda x: x**-0.5),
        ("exp2", lambda x: 2**x),
    ],
)
def test_functions_by_their_formulas(fn, formula):
    x = torch.linspace(-5, 30, 50, dtype=torch.float64)
    x = x.abs() + 0.1 if fn == "rsqrt" else x
    found = evaluate(call(fn, real("x", "N")), {"N": 50}, {"x": Value(x, ("N",))}).tensor
    torch.testing.assert_close(found, formula(x), rtol=1e-12, atol=1e-14)


def test_softplus_keeps_its_tails():
    x = torch.tensor([-800.0, -40.0, 40.0, 800.0], dtype=torch.float64)
    found = evaluate(call("softplus", real("x", "N")), {"N": 4}, {"x": Value(x, ("N",))}).tensor
    wanted = torch.tensor([0.0, math.exp(-40), 40.0, 800.0], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_values_align_by_name():
    a, b = torch.randn(5), torch.randn(4)
    values = {"a": Value(a, ("J",)), "b": Value(b, ("I",))}
    found = evaluate(call("sub", real("a", "J"), real("b", "I")), SIZES, values)
    assert found.dims == ("I", "J")
    assert torch.equal(found.tensor, a[None, :] - b[:, None])


def test_integers_floor_and_booleans_count():
    i, j = Index("I"), Index("J")
    quotient = evaluate(call("floordiv", call("sub", i, j), 3), SIZES).tensor
    rest = evaluate(call("mod", call("sub", i, j), 3), SIZES).tensor
    for a in range(4):
        for b in range(5):
            assert quotient[a, b] == math.floor((a - b) / 3)
            assert rest[a, b] == (a - b) - 3 * math.floor((a - b) / 3)
    assert rest.dtype == torch.int64
    count = evaluate(call("add", call("lt", i, 2), call("lt", i, 3)), SIZES).tensor
    assert count.dtype == torch.int64
    assert count.tolist() == [2, 2, 1, 0]


def test_a_divisor_of_zero_in_data_gives_zero():
    n = Value(torch.tensor([0, 2, -2, 0]), ("I",))
    for fn, wanted in (("floordiv", [0, 2, -3, 0]), ("mod", [0, 1, -1, 0])):
        assert evaluate(call(fn, 5, integer("n", "I")), SIZES, {"n": n}).tensor.tolist() == wanted


def test_real_division_of_integers():
    found = evaluate(call("div", Index("I"), 4), SIZES).tensor
    assert found.tolist() == [0.0, 0.25, 0.5, 0.75]


def test_positions_are_not_rounded_before_they_meet_data():
    sizes = {"T": 2000}
    angle = call("cos", call("mul", Index("T"), 0.7))
    found = evaluate(angle, sizes, dtype=torch.bfloat16).tensor
    exact = evaluate(angle, sizes).tensor
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 1e-3
    x = {"x": Value(torch.ones(2000, dtype=torch.bfloat16), ("T",))}
    assert (
        evaluate(call("mul", angle, real("x", "T")), sizes, x, dtype=torch.bfloat16).tensor.dtype
        == torch.bfloat16
    )


def test_a_host_number_takes_the_precision_that_it_meets():
    x = {"x": Value(torch.ones(4, dtype=torch.bfloat16), ("I",))}
    third = call("div", Literal(1), Literal(3))
    found = evaluate(call("mul", third, real("x", "I")), SIZES, x, dtype=torch.bfloat16).tensor
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, torch.full((4,), 1 / 3).bfloat16())


@pytest.mark.parametrize("fn", ["log", "sqrt", "rsqrt", "acos", "exp", "div", "pow", "mul"])
def test_nothing_comes_back_from_where_nothing_went(fn):
    # At x the derivative, or the value, is infinite; `where` takes the other branch there.
    x = torch.tensor([{"acos": 1.0, "exp": 800.0}.get(fn, 0.0), 0.5], dtype=torch.float64)
    x.requires_grad_()
    args = [real("x", "N")]
    if fn == "div":
        args = [Literal(1.0), *args]
    if fn == "pow":
        args = [*args, Literal(-0.5)]
    if fn == "mul":
        args = [*args, call("div", 1.0, call("mul", 1.0, Index("N")))]
    chosen = call("where", call("eq", Index("N"), 1), call(fn, *args), Literal(0.0))
    evaluate(chosen, {"N": 2}, {"x": Value(x, ("N",))}).tensor.sum().backward()
    assert x.grad is not None
    assert x.grad[0] == 0
    assert x.grad[1].isfinite()
    assert x.grad[1] != 0


def test_the_guard_leaves_gradients_as_they_are():
    x = torch.randn(3, 1, dtype=torch.float64, requires_grad=True)
    y = torch.rand(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, y: nothing_from_nothing(torch.div, [x, y + 0.5]), (x, y)
    )


SMOOTH_AT_ZERO = (
    "exp exp2 expm1 log1p tanh sigmoid logsigmoid softplus gelu gelu_tanh silu erf sin cos"
).split()


@pytest.mark.parametrize("name", SMOOTH_AT_ZERO)
def test_the_slope_at_zero_is_that_on_both_sides(name):
    # inputs in 16 bits are often 0 together with a bias
    x = torch.tensor([-1e-6, 0.0, 1e-6], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(FUNCTIONS[name](x).sum(), x)
    assert torch.allclose(slope[1], (slope[0] + slope[2]) / 2, atol=1e-9), slope
