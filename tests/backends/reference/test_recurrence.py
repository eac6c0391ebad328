"""The recurrence form against loops written by hand, and against torch's own modules."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.evaluate import run
from mixc.ir.errors import UnsupportedError
from mixc.ir.expression import (
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
)
from mixc.ir.mixer import Equation, Input, Line, Mixer, Output, Recurrence, Rounds, State


def ref(name: str, dims: str, kind: Kind = Kind.REAL) -> Ref:
    return Ref(name, frozenset(dims), kind)


def add(*terms: Expr) -> Expr:
    total = terms[0]
    for term in terms[1:]:
        total = call("add", total, term)
    return total


def mul(*factors: Expr) -> Expr:
    product = factors[0]
    for factor in factors[1:]:
        product = call("mul", product, factor)
    return product


def total(x: Expr, *over: str) -> Reduce:
    return Reduce("sum", x, over)


def is_(name: str, value: Expr) -> Equation:
    return Equation(name, value)


def mixer(
    inputs: Mapping[str, str],
    states: Mapping[str, tuple[str, Expr]],
    step: list[Line],
    outputs: Mapping[str, str],
    over: str = "T",
    **more: object,
) -> Mixer:
    """A recurrence; axes are single letters, in strings."""
    kinds = more.pop("kinds", {})
    own = tuple(State(name, frozenset(dims), initial) for name, (dims, initial) in states.items())
    stage = Recurrence(over, own, tuple(step), **more)  # type: ignore[arg-type]
    return Mixer(
        "tried",
        tuple(
            Input(n, tuple((d,) for d in dims), kinds.get(n, Kind.REAL))  # type: ignore[attr-defined]
            for n, dims in inputs.items()
        ),
        tuple(Output(n, tuple((d,) for d in dims)) for n, dims in outputs.items()),
        (stage,),
    )


def draw(mixer: Mixer, dtype: torch.dtype = torch.float64, **sizes: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        i.name: torch.randn([sizes[d] for d in i.dims], dtype=torch.float64).to(dtype)
        for i in mixer.inputs
    }


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


# ----------------------------------------------------------------------------- the delta rules

S = ref("S", "BHDE")
q, k, v = ref("q", "BTHD"), ref("k", "BTHD"), ref("v", "BTHE")
g, beta = ref("g", "BTH"), ref("beta", "BTH")


def gated_delta_rule(**more: object) -> Mixer:
    held = total(mul(k, S), "D")
    return mixer(
        {"q": "BTHD", "k": "BTHD", "v": "BTHE", "g": "BTH", "beta": "BTH", "S0": "BHDE"},
        {"S": ("BHDE", ref("S0", "BHDE"))},
        [
            is_("S", mul(call("exp", g), S)),
            is_("S", add(S, mul(beta, k, call("sub", v, held)))),
            is_("o", mul(call("pow", Size("D"), -0.5), total(mul(q, S), "D"))),
        ],
        {"o": "BTHE", "S": "BHDE"},
        **more,
    )


def gentle(given: dict[str, Tensor]) -> dict[str, Tensor]:
    made = dict(given)
    made["k"] = torch.nn.functional.normalize(given["k"], dim=-1)
    made["g"] = torch.nn.functional.logsigmoid(given["g"])
    made["beta"] = torch.sigmoid(given["beta"])
    return made


def by_hand(given: Mapping[str, Tensor], rows: range, reset: Tensor | None = None) -> tuple:
    state, made = given["S0"], {}
    for t in rows:
        if reset is not None:
            state = state * ~reset[:, t, None, None, None]
        k, beta = given["k"][:, t], given["beta"][:, t, :, None]
        state = given["g"][:, t, :, None, None].exp() * state
        held = torch.einsum("bhd,bhde->bhe", k, state)
        state = state + torch.einsum("bhd,bhe->bhde", beta * k, given["v"][:, t] - held)
        made[t] = torch.einsum("bhd,bhde->bhe", given["q"][:, t], state) / k.shape[-1] ** 0.5
    return torch.stack([made[t] for t in range(len(rows))], 1), state


SIZES = {"B": 2, "T": 7, "H": 3, "D": 4, "E": 5}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("reset", [False, True])
def test_gated_delta_rule(reverse: bool, reset: bool) -> None:
    flags = torch.rand(2, 7) < 0.4
    if reset:
        tried = gated_delta_rule(reverse=reverse, reset=ref("z", "BT", Kind.BOOL))
        z = Input("z", (("B",), ("T",)), Kind.BOOL)
        tried = Mixer("m", (*tried.inputs, z), tried.outputs, tried.stages)
    else:
        tried = gated_delta_rule(reverse=reverse)
    given = gentle(draw(tried, **SIZES))
    if reset:
        given["z"] = flags
    found = run(tried, given)
    order = range(6, -1, -1) if reverse else range(7)
    o, state = by_hand(given, order, flags if reset else None)
    close(found["o"], o)
    close(found["S"], state)


def test_gradients() -> None:
    tried = gated_delta_rule()
    given = gentle(draw(tried, **{**SIZES, "B": 1, "H": 1, "T": 4}))
    leaves = [t.detach().requires_grad_() for t in given.values()]

    def outputs(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        found = run(tried, dict(zip(given, tensors, strict=True)))
        return found["o"], found["S"]

    assert torch.autograd.gradcheck(outputs, leaves)
    found = torch.autograd.grad(outputs(*leaves)[0].square().sum(), leaves)
    detached = dict(zip(given, leaves, strict=True))
    wanted = torch.autograd.grad(by_hand(detached, range(4))[0].square().sum(), leaves)
    for a, b in zip(found, wanted, strict=True):
        close(a, b)


def test_five_hundred_rows_take_no_time() -> None:
    tried = gated_delta_rule()
    given = gentle(draw(tried, **{**SIZES, "T": 500}))
    run(tried, given)
    started = time.thread_time()  # a busy machine doesn't count
    found = run(tried, given)
    assert time.thread_time() - started < 2.0  # 0.2 s on an idle core
    close(found["o"], by_hand(given, range(500))[0])


def test_no_rows() -> None:
    tried = gated_delta_rule()
    given = draw(tried, **{**SIZES, "T": 0})
    found = run(tried, given)
    assert found["o"].shape == (2, 0, 3, 5)
    assert found["o"].dtype == torch.float64
    close(found["S"], given["S0"])
    assert run(tried, draw(tried, **{**SIZES, "B": 0}))["o"].shape == (0, 7, 3, 5)


def test_several_corrections_in_a_row() -> None:
    """DeltaProduct: a loop over R in each row, and a name made there, whole after it."""
    k, v, beta = ref("k", "TRD"), ref("v", "TRE"), ref("beta", "TR")
    S = ref("S", "DE")
    miss = ref("miss", "TRE")
    tried = mixer(
        {"q": "TD", "k": "TRD", "v": "TRE", "beta": "TR"},
        {"S": ("DE", Literal(0.0))},
        [
            Rounds(
                "R",
                (
                    is_("miss", call("sub", v, total(mul(k, S), "D"))),
                    is_("S", add(S, mul(beta, k, miss))),
                ),
            ),
            is_("worst", Reduce("max", call("abs", miss), ("R", "E"))),
            is_("o", total(mul(ref("q", "TD"), S), "D")),
        ],
        {"o": "TE", "miss": "TRE", "worst": "T", "S": "DE"},
    )
    given = gentle({**draw(tried, T=5, R=3, D=4, E=2), "g": torch.zeros(1)})
    del given["g"]
    found = run(tried, given)
    state, misses, rows = torch.zeros(4, 2, dtype=torch.float64), [], []
    for t in range(5):
        for r in range(3):
            misses.append(given["v"][t, r] - given["k"][t, r] @ state)
            state = state + given["beta"][t, r] * torch.outer(given["k"][t, r], misses[-1])
        rows.append(given["q"][t] @ state)
    miss_TRE = torch.stack(misses).reshape(5, 3, 2)
    close(found["miss"], miss_TRE)
    close(found["worst"], miss_TRE.abs().amax((1, 2)))
    close(found["o"], torch.stack(rows))
    close(found["S"], state)
    empty = run(tried, {**given, **{n: given[n][:, :0] for n in ("k", "v", "beta")}})
    assert empty["miss"].shape == (5, 0, 2)
    assert torch.equal(empty["S"], torch.zeros(4, 2, dtype=torch.float64))


# ------------------------------------------------------------------- several states, vectors


def test_mlstm() -> None:
    q, k, v = ref("q", "TD"), ref("k", "TD"), ref("v", "TE")
    i, f = ref("i", "T"), ref("f", "T")
    m, C, n, m1 = ref("m", ""), ref("C", "DE"), ref("n", "D"), ref("m1", "T")
    kept = call("exp", call("sub", add(call("logsigmoid", f), m), m1))
    new = call("exp", call("sub", i, m1))
    tried = mixer(
        {"q": "TD", "k": "TD", "v": "TE", "i": "T", "f": "T"},
        {"m": ("", Literal(0.0)), "C": ("DE", Literal(0.0)), "n": ("D", Literal(0.0))},
        [
            is_("m1", call("max", add(call("logsigmoid", f), m), i)),
            is_("C", add(mul(kept, C), mul(new, k, v))),
            is_("n", add(mul(kept, n), mul(new, k))),
            is_("m", m1),
            is_(
                "o",
                call(
                    "div",
                    total(mul(q, C), "D"),
                    call("max", call("abs", total(mul(q, n), "D")), call("exp", call("neg", m))),
                ),
            ),
        ],
        {"o": "TE", "m1": "T", "m": "", "C": "DE", "n": "D"},
    )
    given = draw(tried, T=40, D=3, E=4)
    found = run(tried, given)
    # Without the running maximum: C and n in units of exp(m), which float64 bears at 40 rows.
    c, n_D = torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    logs = torch.zeros((), dtype=torch.float64)
    for t in range(40):
        forget = torch.sigmoid(given["f"][t])
        logs = torch.maximum(torch.log(forget) + logs, given["i"][t])
        c = forget * c + given["i"][t].exp() * torch.outer(given["k"][t], given["v"][t])
        n_D = forget * n_D + given["i"][t].exp() * given["k"][t]
        bottom = (given["q"][t] @ n_D).abs().clamp(min=1.0)
        close(found["o"][t], given["q"][t] @ c / bottom)
        close(found["m1"][t], logs)
    close(found["C"], c * torch.exp(-logs))
    close(found["m"], logs)


def test_selective_scan() -> None:
    x, dt, a = ref("x", "BTC"), ref("dt", "BTC"), ref("a", "CN")
    h, w, r, skip = ref("h", "BCN"), ref("w", "BTN"), ref("r", "BTN"), ref("skip", "C")
    tried = mixer(
        {"x": "BTC", "dt": "BTC", "a": "CN", "w": "BTN", "r": "BTN", "skip": "C"},
        {"h": ("BCN", Literal(0.0))},
        [
            is_("h", add(mul(call("exp", mul(dt, a)), h), mul(dt, w, x))),
            is_("y", add(total(mul(r, h), "N"), mul(skip, x))),
        ],
        {"y": "BTC"},
    )
    given = draw(tried, B=2, T=9, C=4, N=3)
    given["a"], given["dt"] = -given["a"].abs(), given["dt"].abs()
    state = torch.zeros(2, 4, 3, dtype=torch.float64)
    for t in range(9):
        step = given["dt"][:, t, :, None]
        state = torch.exp(step * given["a"]) * state
        state = state + step * given["w"][:, t, None] * given["x"][:, t, :, None]
        wanted = (given["r"][:, t, None] * state).sum(-1) + given["skip"] * given["x"][:, t]
        close(run(tried, given)["y"][:, t], wanted)


@pytest.mark.parametrize("reverse", [False, True])
def test_lstm(reverse: bool) -> None:
    """Against ``torch.nn.LSTM``: recurrent weights read the state at computed places."""
    h, c, x = ref("h", "BN"), ref("c", "BN"), ref("x", "BTC")
    before = Read(h, (("N", Index("P")),))
    states: dict[str, tuple[str, Expr]] = {"h": ("BN", Literal(0.0)), "c": ("BN", Literal(0.0))}

    def gate(name: str) -> Expr:
        inner = total(mul(ref(f"w{name}", "NC"), x), "C")
        own = total(mul(ref(f"u{name}", "NP"), before), "P")
        return add(inner, own, ref(f"b{name}", "N"))

    squashed = {n: call("tanh" if n == "g" else "sigmoid", gate(n)) for n in "ifgo"}
    step: list[Line] = [is_(f"z{n}", squashed[n]) for n in "ifgo"]
    z = {n: ref(f"z{n}", "BTN") for n in "ifgo"}
    step += [
        is_("c", add(mul(z["f"], c), mul(z["i"], z["g"]))),
        is_("h", mul(z["o"], call("tanh", c))),
        is_("y", h),
    ]
    inputs = {"x": "BTC"}
    for n in "ifgo":
        inputs |= {f"w{n}": "NC", f"u{n}": "NP", f"b{n}": "N"}
    tried = mixer(inputs, states, step, {"y": "BTN", "h": "BN", "c": "BN"}, reverse=reverse)
    given = draw(tried, B=3, T=6, C=4, N=5, P=5)
    module = torch.nn.LSTM(4, 5, batch_first=True).double()
    with torch.no_grad():
        module.weight_ih_l0.copy_(torch.cat([given[f"w{n}"] for n in "ifgo"]))
        module.weight_hh_l0.copy_(torch.cat([given[f"u{n}"] for n in "ifgo"]))
        module.bias_ih_l0.copy_(torch.cat([given[f"b{n}"] for n in "ifgo"]))
        module.bias_hh_l0.zero_()
        wanted, (last, cell) = module(given["x"].flip(1) if reverse else given["x"])
    found = run(tried, given)
    close(found["y"], wanted.flip(1) if reverse else wanted)
    close(found["h"], last[0])
    close(found["c"], cell[0])


# --------------------------------------------------------------------------- what rows see


def test_rows_positions_and_sizes() -> None:
    """A row knows its position and the whole length; what moves along the axis sees all rows."""
    x, s, t = ref("x", "T"), ref("s", ""), Index("T")
    before = Read(x, (("T", call("sub", t, 1)),))
    twice = ref("twice", "T")
    tried = mixer(
        {"x": "T"},
        {"s": ("", Literal(1.0))},
        [
            is_("twice", mul(Literal(2.0), x)),
            is_("s", add(mul(s, Literal(0.5)), before, Cumsum(x, "T"))),
            is_("s", add(s, Read(twice, (("T", call("add", t, 1)),), 7.0))),
            is_("y", add(s, call("div", t, Size("T")), Reduce("max", x, ("T",)))),
        ],
        {"y": "T", "s": "", "twice": "T"},
    )
    x_T = draw(tried, T=6)["x"]
    state, rows = torch.ones((), dtype=torch.float64), []
    for i in range(6):
        state = 0.5 * state + (x_T[i - 1] if i else 0) + x_T[: i + 1].sum()
        state = state + (2 * x_T[i + 1] if i < 5 else 7)
        rows.append(state + i / 6 + x_T.max())
    found = run(tried, {"x": x_T})
    close(found["y"], torch.stack(rows))
    close(found["twice"], 2 * x_T)


def test_a_name_means_its_latest_value_wherever_a_term_is_shared() -> None:
    """One node in two lines, between which the state changes."""
    x, s = ref("x", "T"), ref("s", "")
    square = mul(s, s)
    tried = mixer(
        {"x": "T"},
        {"s": ("", Literal(2.0))},
        [is_("a", add(square, square)), is_("s", add(s, x)), is_("b", square)],
        {"a": "T", "b": "T"},
    )
    found = run(tried, {"x": torch.ones(2, dtype=torch.float64)})
    assert found["a"].tolist() == [8.0, 18.0]
    assert found["b"].tolist() == [9.0, 16.0]


def test_a_state_is_spread_over_the_axes_that_its_value_lacks() -> None:
    tried = mixer(
        {"x": "T", "w": "N"},
        {"s": ("N", Literal(0.0))},
        [is_("s", ref("x", "T")), is_("y", total(mul(ref("w", "N"), ref("s", "N")), "N"))],
        {"y": "T", "s": "N"},
    )
    given = draw(tried, T=3, N=4)
    found = run(tried, given)
    close(found["y"], given["x"] * given["w"].sum())
    close(found["s"], given["x"][-1].expand(4))


def test_other_rows_of_what_a_step_makes_are_refused() -> None:
    s = ref("s", "")
    tried = mixer(
        {"x": "T"},
        {"s": ("", Literal(0.0))},
        [is_("s", add(s, ref("x", "T"))), is_("y", Cumsum(mul(s, ref("x", "T")), "T"))],
        {"y": "T"},
    )
    with pytest.raises(UnsupportedError, match="other rows of T"):
        run(tried, {"x": torch.ones(3)})


@pytest.mark.parametrize("batched", [False, True])
def test_solve(batched: bool) -> None:
    """MesaNet's read: the outer products so far, solved against the query."""
    batch = "H" if batched else ""
    A = ref("A", batch + "DP")
    k, q = ref("k", "T" + batch + "D"), ref("q", "T" + batch + "DE")
    other = Read(k, (("D", Index("P")),))
    tried = mixer(
        {"q": "T" + batch + "DE", "k": "T" + batch + "D", "A0": "DP"},
        {"A": (batch + "DP", ref("A0", "DP"))},
        [is_("A", add(A, mul(k, other))), is_("x", Solve(A, q, "D", "P"))],
        {"x": "T" + batch + "PE", "A": batch + "DP"},
    )
    given = draw(tried, T=4, D=3, P=3, E=2, H=2)
    given["A0"] = torch.eye(3, dtype=torch.float64)
    given = {name: t.requires_grad_() for name, t in given.items()}
    found = run(tried, given)["x"]
    outer = torch.einsum("t...d,t...p->t...dp", given["k"], given["k"]).cumsum(0)
    wanted = torch.linalg.solve(given["A0"] + outer, given["q"])
    close(found, wanted)
    probe = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad(found, [*given.values()], probe),
        torch.autograd.grad(wanted, [*given.values()], probe),
        strict=True,
    ):
        close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_are_float32_in_lower_precision(dtype: torch.dtype) -> None:
    """A sum of a thousand ones and a little stays: bfloat16 would stop at 256."""
    tried = mixer(
        {"x": "TD"},
        {"s": ("D", Literal(0.0))},
        [is_("s", add(ref("s", "D"), ref("x", "TD"))), is_("y", ref("s", "D"))],
        {"y": "TD", "s": "D"},
    )
    found = run(tried, {"x": torch.ones(1000, 2, dtype=dtype)}, dtype=dtype)
    assert found["s"].dtype == dtype
    assert found["s"].tolist() == [1000.0, 1000.0]
    assert found["y"].dtype == dtype


def test_factors_of_products_are_rounded_in_lower_precision() -> None:
    tried = gated_delta_rule()
    given = gentle(draw(tried, **{**SIZES, "T": 60}))
    for dtype, most in ((torch.bfloat16, 0.02), (torch.float16, 0.003), (torch.float32, 1e-6)):
        rounded = {name: t.to(dtype) for name, t in given.items()}
        exact, found = run(tried, rounded)["o"], run(tried, rounded, dtype=dtype)["o"]
        error = float((found.double() - exact).abs().max() / exact.abs().max())
        assert most / 100 < error < most
