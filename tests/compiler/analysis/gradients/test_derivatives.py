"""Symbolic adjoints against torch's autograd, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixc.backends.reference.evaluate import run
from mixc.compiler.analysis.gradients.derivatives import derivative, pullback
from mixc.compiler.analysis.gradients.partials import PARTIALS
from mixc.ir.expression import (
    ELEMENTWISE,
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Size,
    Solve,
    call,
    call_kind,
)
from mixc.ir.mixer import Equation, Input, Map, Mixer, Output
from mixc.ir.verify_mixer import verify_mixer

SIZES = {"A": 3, "B": 4, "C": 2, "P": 3}
SHAPES = {"x": "AB", "y": "BC", "z": "A", "w": "AP", "u": "C"}
REFS = {name: Ref(name, frozenset(dims), Kind.REAL) for name, dims in SHAPES.items()}


def inputs(positive: bool = False) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    values = {
        name: torch.randn([SIZES[d] for d in dims], generator=made, dtype=torch.float64)
        for name, dims in SHAPES.items()
    }
    if positive:
        values = {name: value.abs() * 0.4 + 0.1 for name, value in values.items()}
    return {name: value.requires_grad_() for name, value in values.items()}


def value_of(expr: Expr, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """The expression by the reference, its axes in alphabetical order."""
    layout = tuple((dim,) for dim in sorted(expr.axes))
    mixer = Mixer(
        name="m",
        inputs=tuple(Input(n, tuple((d,) for d in dims)) for n, dims in SHAPES.items()),
        outputs=(Output("o", layout),),
        stages=(Map((Equation("o", expr),)),),
    )
    verify_mixer(mixer)
    return run(mixer, tensors)["o"]


def check(expr: Expr, positive: bool = False) -> None:
    tensors = inputs(positive)
    loss = value_of(expr, tensors).sum()
    loss = loss + 0 * tensors["u"].sum()  # where nothing else has a gradient
    wanted = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
    for (name, dims), grad in zip(SHAPES.items(), wanted, strict=True):
        found = derivative(expr, REFS[name])
        assert found.axes <= set(dims)
        shape = [SIZES[d] if d in found.axes else 1 for d in sorted(dims)]
        whole = value_of(found, tensors).reshape(shape).expand([SIZES[d] for d in sorted(dims)])
        zero = torch.zeros([SIZES[d] for d in dims], dtype=torch.float64)
        torch.testing.assert_close(whole, zero if grad is None else grad, rtol=1e-9, atol=1e-11)


x, y, z, w, u = REFS.values()
a, b, c, p = Index("A"), Index("B"), Index("C"), Index("P")
group = (("C", call("mod", b, 2)),)
around = call("mod", call("sub", a, Index("C")), Size("A"))
inside = call("lt", call("add", a, b), 4)

RULES = {
    "max": Reduce("max", call("mul", x, y), ("B",)),
    "min of two axes": Reduce("min", call("mul", x, y), ("B", "C")),
    "max where": Reduce("max", x, ("B",), call("lt", b, 3)),
    "max of groups": Reduce("max", x, ("B",), None, group),
    "ties": Reduce("max", call("floor", call("mul", x, 0.0)), ("B",)),
    "prod": Reduce("prod", x, ("B",)),
    "prod with a zero": Reduce("prod", call("where", call("eq", b, 1), 0.0, x), ("B",)),
    "prod with zeros": Reduce("prod", call("where", call("lt", b, 2), 0.0, x), ("B",)),
    "prod of groups": Reduce("prod", x, ("B",), inside, group),
    "sum where": Reduce("sum", z, ("A",), inside),
    "sum of groups": call("mul", Reduce("sum", x, ("B",), None, group), u),
    "groups outside": Reduce("sum", x, ("B",), None, (("C", call("sub", b, 1)),)),
    "sum over what it lacks": Reduce("sum", call("mul", z, call("add", b, 1)), ("B",)),
    "transpose": call("mul", Read(w, (("A", p), ("P", a))), w),
    "exchange of unequal": Read(y, (("B", Index("C")), ("C", b))),
    "renamed": call("mul", Read(z, (("A", p),)), w),
    "shift": call("mul", Read(x, (("B", call("sub", b, 1)),)), x),
    "shift far": Read(x, (("B", call("add", 9, b)),)),
    "convolution": call("mul", Read(x, (("B", call("sub", b, Index("C"))),)), y),
    "convolution from the end": call("mul", Read(z, (("A", call("sub", p, a)),)), w),
    "around the end": call("mul", Read(w, (("A", around),)), u),
    "around another end": call("mul", Read(z, (("A", call("mod", b, Size("A"))),)), x),
    "of two taps each": call("mul", Read(y, (("B", call("sub", call("add", p, a), 2)),)), w),
    "moved by itself": call("mul", Read(x, (("B", call("sub", b, call("mod", b, 2))),)), y),
    "moved by another": Read(y, (("B", call("add", b, Index("C"))), ("C", call("sub", b, 1)))),
    "flip": call("mul", Read(x, (("B", call("sub", 3, b)),)), y),
    "gather": call("mul", Read(x, (("B", call("mod", call("mul", a, 2), 3)),)), z),
    "every other": call(
        "mul", Read(x, (("B", call("sub", call("mul", 2, call("add", c, 1)), 1)),)), y
    ),
    "every other from the end": Read(x, (("B", call("sub", 3, call("mul", c, 2))),)),
    "every third, alone": Read(u, (("C", call("add", call("mul", p, 3), 1)),)),
    "taken apart, another read": Read(
        call("mul", x, y), (("A", call("floordiv", p, 2)), ("B", a), ("C", call("mod", a, 2)))
    ),
    "gather into more": Read(u, (("C", call("floordiv", b, 2)),)),
    "one place": call("mul", Read(x, (("B", Literal(2)),)), z),
    "outside": Read(x, (("B", Literal(7)),), fill=2.5),
    "two places": Read(x, (("B", call("add", p, 1)), ("A", Literal(0)))),
    "cumsum": call("mul", Cumsum(x, "B"), y),
    "cumsum the other way": call("mul", Cumsum(x, "B", reverse=True, exclusive=True), y),
    "cumsum alone": Cumsum(z, "A", exclusive=True),
    "solve": Solve(call("add", w, call("where", call("eq", a, p), 4, 0)), x, "A", "P"),
    "solve alone": Solve(call("add", w, call("where", call("eq", a, p), 4, 0)), z, "A", "P"),
    "max of two": call("max", x, z),
    "equal parts": call("max", x, x),
    "where": call("where", inside, call("exp", x), z),
    "detach": call("mul", call("detach", x), x),
    "floor": call("mul", call("floor", x), x),
    "shared": call("mul", call("add", call("exp", x), z), call("exp", x)),
    "size": call("mul", x, Size("C")),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule(name):
    check(RULES[name])


REAL = [fn for fn in ELEMENTWISE if call_kind(fn, (x,) * ELEMENTWISE[fn]) is Kind.REAL]


@pytest.mark.parametrize("fn", REAL)
def test_an_elementwise_function(fn):
    if fn == "where":
        check(call("where", call("lt", x, 0.2), x, z))
        return
    if fn in ("mod", "floordiv"):
        return
    args = (x, z)[: ELEMENTWISE[fn]]
    check(
        call("mul", call(fn, *args), y),
        positive=fn in ("acos", "pow") or "log" in fn or "sqrt" in fn,
    )


def test_every_real_function_has_a_rule():
    assert set(REAL) <= set(PARTIALS)


@pytest.mark.parametrize("power", [0, 1, 2, 3, -1, 0.5])
def test_powers(power):
    check(call("pow", x, power), positive=True)


def test_logaddexp_where_both_are_minus_infinity():
    tensors = inputs()
    lowest = call("logaddexp", call("sub", x, float("inf")), call("sub", z, float("inf")))
    assert value_of(derivative(lowest, x), tensors).isfinite().all()


def test_rows_are_never_summed():
    loss = call("mul", call("mul", x, z), y)
    found = pullback(loss, Literal(1.0), ("z",), frozenset("B"))["z"]
    assert found.axes == {"A", "B"}


def test_what_has_no_effect():
    assert derivative(call("exp", x), z) == Literal(0.0)
    assert derivative(call("detach", z), z) == Literal(0.0)
    assert pullback(call("exp", x), Literal(1.0), ("z",)) == {}


SMOOTH = ("exp", "tanh", "sigmoid", "sin", "cos", "softplus", "silu", "neg", "erf")
leaves = st.sampled_from([*REFS.values(), Literal(0.5), call("mul", b, 0.1), call("mul", a, 0.2)])


@st.composite
def reductions(draw, inner):
    value = draw(inner)
    dims = sorted(value.axes)
    if not dims:
        return value
    dim = draw(st.sampled_from(dims))
    return draw(
        st.sampled_from(
            [
                Reduce("sum", call("mul", value, 0.3), (dim,)),
                Cumsum(call("mul", value, 0.3), dim, reverse=draw(st.booleans())),
                Read(value, ((dim, call("sub", Index(dim), draw(st.integers(-2, 2)))),)),
                Read(value, ((dim, call("floordiv", Index(dim), 2)),)),
            ]
        )
    )


trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda fn, v: Call(fn, (v,)), st.sampled_from(SMOOTH), inner),
        st.builds(
            lambda fn, v, o: Call(fn, (v, o)), st.sampled_from(["add", "sub", "mul"]), inner, inner
        ),
        reductions(inner),
    ),
    max_leaves=7,
)


@settings(max_examples=25, deadline=None)
@given(trees)
def test_any_expression(expr):
    if expr.kind is Kind.REAL and expr.axes:
        check(call("tanh", expr))
